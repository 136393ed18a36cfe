//! The calls by name. Every one of CRI v1 (1.37) is here: done, or refused by name.

use super::Server;
use super::grpc::{Code, Refusal, Reply, encode};
use super::v1::{
    StreamContainerStatsResponse, StreamContainersResponse, StreamImagesResponse, StreamPodSandboxStatsResponse,
    StreamPodSandboxesResponse,
};
use bytes::Bytes;
use futures::StreamExt;
use prost::Message;
use std::sync::Arc;

const RUNTIME: &str = "/runtime.v1.RuntimeService/";
const IMAGE: &str = "/runtime.v1.ImageService/";

pub(super) async fn call(server: &Arc<Server>, path: &str, message: Bytes) -> Result<Reply, Refusal> {
    let unknown = || Refusal::new(Code::Unimplemented, format!("unknown method {path}"));
    if let Some(method) = path.strip_prefix(IMAGE) {
        return image(server, method, message).await.unwrap_or_else(|| Err(unknown()));
    }
    let method = path.strip_prefix(RUNTIME).ok_or_else(unknown)?;
    if let Some(reply) = change(server, method, message.clone()).await {
        return reply;
    }
    look(server, method, message).await.unwrap_or_else(|| Err(unknown()))
}

type Answer = Option<Result<Reply, Refusal>>;

async fn image(server: &Arc<Server>, method: &str, message: Bytes) -> Answer {
    Some(match method {
        "ListImages" => one(message, |request| server.list_images(request)).await,
        "StreamImages" => {
            let list = one_of(message, |request| server.stream_images(request)).await;
            list.map(|images| many((!images.is_empty()).then_some(StreamImagesResponse { images })))
        }
        "ImageStatus" => one(message, |request| server.image_status(request)).await,
        "PullImage" => one(message, |request| server.pull_image(request)).await,
        "RemoveImage" => one(message, |request| server.remove_image(request)).await,
        "ImageFsInfo" => one(message, |request| server.image_fs_info(request)).await,
        _ => return None,
    })
}

/// Calls that change something: they go on when the client has gone.
async fn change(server: &Arc<Server>, method: &str, message: Bytes) -> Answer {
    let known = matches!(
        method,
        "RunPodSandbox"
            | "StopPodSandbox"
            | "RemovePodSandbox"
            | "CreateContainer"
            | "StartContainer"
            | "StopContainer"
            | "RemoveContainer"
            | "UpdateContainerResources"
            | "UpdatePodSandboxResources"
            | "ReopenContainerLog"
    );
    if !known {
        return None;
    }
    let (own, method) = (server.clone(), method.to_owned());
    let done = server.tasks.spawn(async move { change_now(&own, &method, message).await });
    Some(done.await.unwrap_or_else(|panic| Err(Refusal::new(Code::Internal, panic.to_string()))))
}

async fn change_now(server: &Server, method: &str, message: Bytes) -> Result<Reply, Refusal> {
    match method {
        "RunPodSandbox" => one(message, |request| server.run_sandbox(request)).await,
        "StopPodSandbox" => one(message, |request| server.stop_sandbox(request)).await,
        "RemovePodSandbox" => one(message, |request| server.remove_sandbox(request)).await,
        "CreateContainer" => one(message, |request| server.create_container(request)).await,
        "StartContainer" => one(message, |request| server.start_container(request)).await,
        "StopContainer" => one(message, |request| server.stop_container(request)).await,
        "RemoveContainer" => one(message, |request| server.remove_container(request)).await,
        "UpdateContainerResources" => one(message, |request| server.update_container(request)).await,
        "UpdatePodSandboxResources" => one(message, |request| server.update_sandbox(request)).await,
        _ => one(message, |request| server.reopen_log(request)).await,
    }
}

async fn look(server: &Arc<Server>, method: &str, message: Bytes) -> Answer {
    Some(match method {
        "Version" => one(message, |request| server.version(request)).await,
        "Status" => one(message, |request| server.status(request)).await,
        "RuntimeConfig" => one(message, |request| server.runtime_config(request)).await,
        "UpdateRuntimeConfig" => one(message, |request| server.update_runtime_config(request)).await,
        "PodSandboxStatus" => one(message, |request| server.sandbox_status(request)).await,
        "ListPodSandbox" => one(message, |request| server.list_sandboxes(request)).await,
        "StreamPodSandboxes" => {
            let list = one_of(message, |request| server.stream_sandboxes(request)).await;
            list.map(|pod_sandboxes| {
                many((!pod_sandboxes.is_empty()).then_some(StreamPodSandboxesResponse { pod_sandboxes }))
            })
        }
        "ContainerStatus" => one(message, |request| server.container_status(request)).await,
        "ListContainers" => one(message, |request| server.list_containers(request)).await,
        "StreamContainers" => {
            let list = one_of(message, |request| server.stream_containers(request)).await;
            list.map(|containers| many((!containers.is_empty()).then_some(StreamContainersResponse { containers })))
        }
        "ExecSync" => one(message, |request| server.exec_sync(request)).await,
        "Exec" => one(message, |request| server.exec(request)).await,
        "Attach" => one(message, |request| server.attach(request)).await,
        "PortForward" => one(message, |request| server.port_forward(request)).await,
        "GetContainerEvents" => Ok(Reply::Many(super::events::stream(server.clone()).map(|e| encode(&e)).boxed())),
        "ContainerStats" => one(message, |request| server.container_stats(request)).await,
        "ListContainerStats" => one(message, |request| server.list_container_stats(request)).await,
        "StreamContainerStats" => {
            let list = one_of(message, |request| server.stream_container_stats(request)).await;
            list.map(|container_stats| {
                many((!container_stats.is_empty()).then_some(StreamContainerStatsResponse { container_stats }))
            })
        }
        "PodSandboxStats" => one(message, |request| server.sandbox_stats(request)).await,
        "ListPodSandboxStats" => one(message, |request| server.list_sandbox_stats(request)).await,
        "StreamPodSandboxStats" => {
            let list = one_of(message, |request| server.stream_sandbox_stats(request)).await;
            list.map(|pod_sandbox_stats| {
                many((!pod_sandbox_stats.is_empty()).then_some(StreamPodSandboxStatsResponse { pod_sandbox_stats }))
            })
        }
        "CheckpointContainer"
        | "CheckpointPod"
        | "RestorePod"
        | "ListMetricDescriptors"
        | "ListPodSandboxMetrics"
        | "StreamPodSandboxMetrics" => Err(Refusal::unimplemented(method)),
        _ => return None,
    })
}

async fn one<Q, A, F>(message: Bytes, call: impl FnOnce(Q) -> F) -> Result<Reply, Refusal>
where
    Q: Message + Default,
    A: Message,
    F: Future<Output = Result<A, Refusal>>,
{
    Ok(Reply::One(encode(&one_of(message, call).await?)))
}

async fn one_of<Q, A, F>(message: Bytes, call: impl FnOnce(Q) -> F) -> Result<A, Refusal>
where
    Q: Message + Default,
    F: Future<Output = Result<A, Refusal>>,
{
    let request = Q::decode(message).map_err(|error| Refusal::new(Code::Internal, error.to_string()))?;
    call(request).await
}

/// A list goes as one message; the socket has no limit that it could break.
fn many(message: Option<impl Message>) -> Reply {
    Reply::Many(futures::stream::iter(message.map(|message| encode(&message))).boxed())
}
