//! `minke status`: how the instance is.

use crate::admin::Admin;
use crate::arguments::Status;
use anyhow::Result;
use serde_json::Value;

/// Prints it; an error when the instance does not run or is not healthy.
pub async fn run(arguments: Status) -> Result<()> {
    let answer = Admin::new(&arguments.instance.data_dir).get("/status").await?;
    let status: Value = serde_json::from_slice(&answer)?;
    if arguments.output.as_deref() == Some("json") {
        println!("{}", serde_json::to_string_pretty(&status)?);
    } else {
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::NOTHING);
        for (name, value) in status.as_object().into_iter().flatten() {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            table.add_row([name.clone(), text]);
        }
        println!("{table}");
    }
    if status["healthy"] != true {
        anyhow::bail!("minke is not healthy: {}", status["problem"].as_str().unwrap_or("the node is not Ready"));
    }
    Ok(())
}
