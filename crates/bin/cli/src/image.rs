//! `minke image`: the instance's image store, through its admin socket.

use crate::admin::Admin;
use crate::arguments::Image;
use anyhow::{Context, Result};
use serde::Deserialize;
use std::path::Path;

/// One image as the admin socket tells it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    id: String,
    repo_tags: Vec<String>,
    size_bytes: u64,
}

pub async fn run(command: Image) -> Result<()> {
    match command {
        Image::Import { instance, archives } => {
            let admin = Admin::new(&instance.data_dir);
            for archive in archives {
                for name in import(&admin, &archive).await? {
                    println!("imported {name}");
                }
            }
        }
        Image::Pull { instance, image } => {
            let path = format!("/images/pull?image={}", encoded(&image));
            let id = Admin::new(&instance.data_dir).post(&path).await?;
            println!("pulled {image}: {}", String::from_utf8_lossy(&id));
        }
        Image::Ls { instance } => list(&Admin::new(&instance.data_dir)).await?,
        Image::Rm { instance, images } => {
            let admin = Admin::new(&instance.data_dir);
            for image in images {
                admin.delete(&format!("/images?image={}", encoded(&image))).await?;
                println!("removed {image}");
            }
        }
    }
    Ok(())
}

/// The names that the archive brought.
pub async fn import(admin: &Admin, archive: &Path) -> Result<Vec<String>> {
    let answer = if archive == Path::new("-") {
        admin.upload("/images/import", tokio::io::stdin()).await
    } else {
        let file =
            tokio::fs::File::open(archive).await.with_context(|| format!("cannot open {}", archive.display()))?;
        admin.upload("/images/import", file).await
    };
    let answer = answer.with_context(|| format!("cannot import {}", archive.display()))?;
    Ok(serde_json::from_slice(&answer)?)
}

async fn list(admin: &Admin) -> Result<()> {
    let images: Vec<Listed> = serde_json::from_slice(&admin.get("/images").await?)?;
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header(["IMAGE", "ID", "SIZE"]);
    for image in images {
        let id: String = image.id.trim_start_matches("sha256:").chars().take(12).collect();
        let size = format!("{:.1} MB", image.size_bytes as f64 / 1e6);
        let names = if image.repo_tags.is_empty() { vec!["<none>".to_owned()] } else { image.repo_tags };
        for name in names {
            table.add_row([name, id.clone(), size.clone()]);
        }
    }
    println!("{table}");
    Ok(())
}

fn encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}
