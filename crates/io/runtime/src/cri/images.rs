//! Images.

use super::grpc::Refusal;
use super::v1::{
    AuthConfig, FilesystemIdentifier, FilesystemUsage as CriUsage, Image, ImageFilter, ImageFsInfoRequest,
    ImageFsInfoResponse, ImageSpec, ImageStatusRequest, ImageStatusResponse, ListImagesRequest, ListImagesResponse,
    PullImageRequest, PullImageResponse, RemoveImageRequest, RemoveImageResponse, StreamImagesRequest, UInt64Value,
};
use super::{Server, tell};
use crate::stats::FilesystemUsage;
use crate::types::Auth;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::collections::BTreeMap;

impl Server {
    pub(super) async fn list_images(&self, request: ListImagesRequest) -> Result<ListImagesResponse, Refusal> {
        Ok(ListImagesResponse { images: self.chosen_images(request.filter).await? })
    }

    pub(super) async fn stream_images(&self, request: StreamImagesRequest) -> Result<Vec<Image>, Refusal> {
        self.chosen_images(request.filter).await
    }

    /// A filter names one image in any way that names one.
    async fn chosen_images(&self, filter: Option<ImageFilter>) -> Result<Vec<Image>, Refusal> {
        let name = filter.and_then(|filter| filter.image).map(|image| image.image).filter(|name| !name.is_empty());
        let images = match name {
            Some(name) => self.runtime.image_status(&name).await?.into_iter().collect(),
            None => self.runtime.list_images().await?,
        };
        Ok(images.into_iter().map(tell::image).collect())
    }

    pub(super) async fn image_status(&self, request: ImageStatusRequest) -> Result<ImageStatusResponse, Refusal> {
        let image = self.runtime.image_status(&named(request.image)?).await?;
        Ok(ImageStatusResponse { image: image.map(tell::image), info: BTreeMap::new() })
    }

    pub(super) async fn pull_image(&self, request: PullImageRequest) -> Result<PullImageResponse, Refusal> {
        let auths: Vec<Auth> = request.auth.map(auth).transpose()?.into_iter().collect();
        let image = self.runtime.pull_image(&named(request.image)?, &auths).await?;
        Ok(PullImageResponse { image_ref: image.id })
    }

    pub(super) async fn remove_image(&self, request: RemoveImageRequest) -> Result<RemoveImageResponse, Refusal> {
        self.runtime.remove_image(&named(request.image)?).await?;
        Ok(RemoveImageResponse {})
    }

    pub(super) async fn image_fs_info(&self, _: ImageFsInfoRequest) -> Result<ImageFsInfoResponse, Refusal> {
        let found = self.runtime.image_fs().await?;
        Ok(ImageFsInfoResponse {
            image_filesystems: vec![file_system(&found.images)],
            container_filesystems: vec![file_system(&found.containers)],
        })
    }
}

pub(super) fn file_system(usage: &FilesystemUsage) -> CriUsage {
    CriUsage {
        timestamp: usage.at_ns,
        fs_id: Some(FilesystemIdentifier { mountpoint: usage.mountpoint.to_string_lossy().into_owned() }),
        used_bytes: Some(UInt64Value { value: usage.used_bytes }),
        inodes_used: Some(UInt64Value { value: usage.inodes_used }),
    }
}

fn named(image: Option<ImageSpec>) -> Result<String, Refusal> {
    let name = image.map(|image| image.image).filter(|name| !name.is_empty());
    name.ok_or_else(|| Refusal::invalid("no image is named"))
}

/// Words for the registry in any of the ways CRI has for them.
fn auth(auth: AuthConfig) -> Result<Auth, Refusal> {
    if !auth.registry_token.is_empty() {
        return Err(Refusal::unimplemented("registry_token"));
    }
    if auth.username.is_empty() && !auth.auth.is_empty() {
        let decoded = STANDARD.decode(&auth.auth).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let pair = decoded.as_deref().and_then(|text| text.trim_end_matches('\0').split_once(':'));
        let (username, password) = pair.ok_or_else(|| Refusal::invalid("auth is not USER:PASSWORD in base64"))?;
        let (username, password) = (username.to_owned(), password.to_owned());
        return Ok(Auth { username, password, ..Auth::default() });
    }
    Ok(Auth { username: auth.username, password: auth.password, identity_token: auth.identity_token })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_the_registry_come_in_several_ways() {
        let of = |auth: &str| AuthConfig { auth: auth.into(), ..AuthConfig::default() };
        let both = Auth { username: "user".into(), password: "pass:word".into(), ..Auth::default() };
        assert_eq!(auth(of("dXNlcjpwYXNzOndvcmQ=")), Ok(both.clone()));
        let plain = AuthConfig { username: "user".into(), password: "pass:word".into(), ..AuthConfig::default() };
        assert_eq!(auth(plain), Ok(both));
        assert!(auth(of("!")).is_err() && auth(of("dXNlcg==")).is_err());
        assert!(auth(AuthConfig { registry_token: "t".into(), ..AuthConfig::default() }).is_err());
    }
}
