//! `minke token`: what an agent needs to join.

use crate::admin::Admin;
use crate::arguments::Token;
use anyhow::Result;

/// Prints it, and nothing else.
pub async fn run(arguments: &Token) -> Result<()> {
    let path = format!("/token?seconds={}", arguments.ttl.as_secs());
    let token = Admin::new(&arguments.instance.data_dir).post(&path).await?;
    println!("{}", String::from_utf8_lossy(&token));
    Ok(())
}
