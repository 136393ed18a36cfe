//! What Pods and containers use.

use super::Server;
use super::find::{optional, selects};
use super::grpc::Refusal;
use super::images::file_system;
use super::v1::{
    ContainerAttributes, ContainerMetadata, ContainerStats as CriStats, ContainerStatsFilter, ContainerStatsRequest,
    ContainerStatsResponse, CpuUsage, IoUsage, LinuxPodSandboxStats, ListContainerStatsRequest,
    ListContainerStatsResponse, ListPodSandboxStatsRequest, ListPodSandboxStatsResponse, MemoryUsage,
    NetworkInterfaceUsage, NetworkUsage as CriNetwork, PodSandboxAttributes, PodSandboxMetadata, PodSandboxStats,
    PodSandboxStatsFilter, PodSandboxStatsRequest, PodSandboxStatsResponse, ProcessUsage, PsiData, PsiStats,
    StreamContainerStatsRequest, StreamPodSandboxStatsRequest, SwapUsage, UInt64Value,
};
use crate::stats::{ContainerStats, InterfaceUsage, NetworkUsage, Pressure, SandboxStats, Stall, Usage};
use crate::types::{ContainerState, ContainerStatus, SandboxStatus};

impl Server {
    pub(super) async fn container_stats(
        &self,
        request: ContainerStatsRequest,
    ) -> Result<ContainerStatsResponse, Refusal> {
        let status = self.find_container(&request.container_id).await?;
        let stats = self.runtime.container_stats(&status.id).await?;
        Ok(ContainerStatsResponse { stats: Some(container(&status, &stats)) })
    }

    pub(super) async fn list_container_stats(
        &self,
        request: ListContainerStatsRequest,
    ) -> Result<ListContainerStatsResponse, Refusal> {
        Ok(ListContainerStatsResponse { stats: self.containers_chosen(request.filter.unwrap_or_default()).await? })
    }

    pub(super) async fn stream_container_stats(
        &self,
        request: StreamContainerStatsRequest,
    ) -> Result<Vec<CriStats>, Refusal> {
        self.containers_chosen(request.filter.unwrap_or_default()).await
    }

    /// Of those that run.
    async fn containers_chosen(&self, filter: ContainerStatsFilter) -> Result<Vec<CriStats>, Refusal> {
        let sandboxes = self.sandboxes().await?;
        let containers = sandboxes.into_iter().flat_map(|sandbox| sandbox.containers).filter(|status| {
            status.state == ContainerState::Running
                && status.id.starts_with(&filter.id)
                && status.sandbox_id.starts_with(&filter.pod_sandbox_id)
                && selects(&filter.label_selector, &status.labels)
        });
        let mut found = Vec::new();
        for status in containers {
            // It may have ended and gone meanwhile.
            if let Some(stats) = optional(self.runtime.container_stats(&status.id).await.map_err(Refusal::from))? {
                found.push(container(&status, &stats));
            }
        }
        Ok(found)
    }

    pub(super) async fn sandbox_stats(
        &self,
        request: PodSandboxStatsRequest,
    ) -> Result<PodSandboxStatsResponse, Refusal> {
        let status = self.find_sandbox(&request.pod_sandbox_id).await?;
        let stats = self.runtime.sandbox_stats(&status.id).await?;
        Ok(PodSandboxStatsResponse { stats: Some(sandbox(&status, &stats)) })
    }

    pub(super) async fn list_sandbox_stats(
        &self,
        request: ListPodSandboxStatsRequest,
    ) -> Result<ListPodSandboxStatsResponse, Refusal> {
        Ok(ListPodSandboxStatsResponse { stats: self.sandboxes_chosen(request.filter.unwrap_or_default()).await? })
    }

    pub(super) async fn stream_sandbox_stats(
        &self,
        request: StreamPodSandboxStatsRequest,
    ) -> Result<Vec<PodSandboxStats>, Refusal> {
        self.sandboxes_chosen(request.filter.unwrap_or_default()).await
    }

    async fn sandboxes_chosen(&self, filter: PodSandboxStatsFilter) -> Result<Vec<PodSandboxStats>, Refusal> {
        let sandboxes = self.sandboxes().await?.into_iter().filter(|status| {
            status.ready && status.id.starts_with(&filter.id) && selects(&filter.label_selector, &status.config.labels)
        });
        let mut found = Vec::new();
        for status in sandboxes {
            if let Some(stats) = optional(self.runtime.sandbox_stats(&status.id).await.map_err(Refusal::from))? {
                found.push(sandbox(&status, &stats));
            }
        }
        Ok(found)
    }
}

fn number(value: u64) -> Option<UInt64Value> {
    Some(UInt64Value { value })
}

fn container(status: &ContainerStatus, stats: &ContainerStats) -> CriStats {
    let usage = stats.usage.as_ref();
    CriStats {
        attributes: Some(ContainerAttributes {
            id: status.id.clone(),
            metadata: Some(ContainerMetadata { name: status.name.clone(), attempt: status.attempt }),
            labels: status.labels.clone(),
            annotations: status.annotations.clone(),
        }),
        cpu: usage.map(cpu),
        memory: usage.map(memory),
        writable_layer: stats.writable_layer.as_ref().map(file_system),
        swap: usage.and_then(swap),
        io: usage.and_then(io),
    }
}

fn sandbox(status: &SandboxStatus, stats: &SandboxStats) -> PodSandboxStats {
    let config = &status.config;
    let usage = stats.usage.as_ref();
    let containers = stats.containers.iter().filter_map(|of| {
        let status = status.containers.iter().find(|status| status.id == of.id)?;
        Some(container(status, of))
    });
    PodSandboxStats {
        attributes: Some(PodSandboxAttributes {
            id: status.id.clone(),
            metadata: Some(PodSandboxMetadata {
                name: config.name.clone(),
                uid: config.uid.clone(),
                namespace: config.namespace.clone(),
                attempt: config.attempt,
            }),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
        }),
        linux: Some(LinuxPodSandboxStats {
            cpu: usage.map(cpu),
            memory: usage.map(memory),
            network: stats.network.as_ref().map(network),
            process: usage.map(|usage| ProcessUsage { timestamp: usage.at_ns, process_count: number(usage.pids) }),
            containers: containers.collect(),
            io: usage.and_then(io),
        }),
        windows: None,
    }
}

/// The rate is the caller's to make of two samples.
fn cpu(usage: &Usage) -> CpuUsage {
    CpuUsage {
        timestamp: usage.at_ns,
        usage_core_nano_seconds: number(usage.cpu.core_ns),
        usage_nano_cores: None,
        psi: usage.cpu.pressure.as_ref().map(pressure),
    }
}

fn memory(usage: &Usage) -> MemoryUsage {
    let memory = &usage.memory;
    MemoryUsage {
        timestamp: usage.at_ns,
        working_set_bytes: number(memory.working_set_bytes),
        available_bytes: memory.available_bytes().map(|value| UInt64Value { value }),
        usage_bytes: number(memory.usage_bytes),
        rss_bytes: number(memory.rss_bytes),
        page_faults: number(memory.page_faults),
        major_page_faults: number(memory.major_page_faults),
        psi: memory.pressure.as_ref().map(pressure),
    }
}

fn swap(usage: &Usage) -> Option<SwapUsage> {
    let swap = usage.swap.as_ref()?;
    Some(SwapUsage {
        timestamp: usage.at_ns,
        swap_available_bytes: swap.available_bytes.map(|value| UInt64Value { value }),
        swap_usage_bytes: number(swap.usage_bytes),
    })
}

fn io(usage: &Usage) -> Option<IoUsage> {
    Some(IoUsage { timestamp: usage.at_ns, psi: Some(pressure(usage.io_pressure.as_ref()?)) })
}

fn pressure(pressure: &Pressure) -> PsiStats {
    PsiStats { full: Some(stall(&pressure.full)), some: Some(stall(&pressure.some)) }
}

fn stall(stall: &Stall) -> PsiData {
    let [avg10, avg60, avg300] = stall.averages.map(|hundredths| f64::from(hundredths) / 100.0);
    PsiData { total: stall.total_us.saturating_mul(1000), avg10, avg60, avg300 }
}

fn network(usage: &NetworkUsage) -> CriNetwork {
    let mut interfaces = usage.interfaces.iter().map(interface);
    CriNetwork { timestamp: usage.at_ns, default_interface: interfaces.next(), interfaces: interfaces.collect() }
}

fn interface(usage: &InterfaceUsage) -> NetworkInterfaceUsage {
    NetworkInterfaceUsage {
        name: usage.name.clone(),
        rx_bytes: number(usage.rx_bytes),
        rx_errors: number(usage.rx_errors),
        tx_bytes: number(usage.tx_bytes),
        tx_errors: number(usage.tx_errors),
    }
}
