//! After a restart of minke: what the API tells of the Pod, corrected by what the runtime has of it.

use super::resize::given;
use super::runs::{has_probes, new_run};
use super::{PodMachine, PodState, Sandbox, Sandboxes, Turned};
use crate::allocated::Sizes;
use crate::container::{Container, ContainerState, Facts, Health, History, Image, Kind, PostStart, Restart, Run};
use crate::pod::{Action, Exit, Found};
use crate::termination;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, ResourceRequirements};
use std::net::IpAddr;
use std::sync::Arc;

impl PodMachine {
    /// Takes the containers over as the API's status has them. Returns whether any of them has ever run, so that the runtime's
    /// word is awaited before anything is said or done.
    pub(super) fn adopt(&mut self) -> bool {
        let status = &self.status;
        let lists = [&status.init_container_statuses, &status.container_statuses, &status.ephemeral_container_statuses];
        let statuses: Vec<_> = lists.into_iter().flatten().flatten().cloned().collect();
        self.sized = actual_pod(&self.pod, &statuses, status.resources.as_ref());
        self.pod_ips = status.pod_ips.iter().flatten().filter_map(|ip| ip.ip.parse().ok()).collect();
        for old in &statuses {
            let spec = self.pod.spec.as_ref();
            let Some(container) = self.containers.iter_mut().find(|container| container.name.0 == old.name) else {
                continue;
            };
            container.history = History::adopt(old);
            container.ran_here = container.history.attempt.is_some();
            let state = old.state.clone().unwrap_or_default();
            if let (Some(running), Some(facts)) = (state.running, &container.history.facts) {
                let image_name =
                    spec.and_then(|spec| container.spec(spec)).map(|spec| spec.image.to_owned()).unwrap_or_default();
                let at = running.started_at.map_or(Timestamp::UNIX_EPOCH, |time| time.0);
                let wanted = spec.and_then(|spec| container.spec(spec)?.resources);
                let given = given(Some(old), wanted);
                let run = Run {
                    id: facts.id.clone(),
                    image_name,
                    sizes: Sizes::of(spec.and_then(|spec| spec.resources.as_ref()), Some(&given)),
                    given,
                    started_at: at,
                    post_start: PostStart::Done,
                    startup: Health::Unasked,
                    readiness: Health::Unasked,
                    liveness: Health::Unasked,
                };
                container.state = ContainerState::Running { run };
            } else if let Some(end) = state.terminated {
                container.state = ContainerState::Exited {
                    exit_code: end.exit_code,
                    finished: std::time::Duration::ZERO,
                    restart: Restart::Never,
                };
            }
        }
        self.any_ran()
    }

    /// The runtime has said nothing of the Pod: what the API shows as running is lost.
    pub(super) fn settle(&mut self) {
        let PodState::Volumes { unsure, .. } = &mut self.state else { return };
        if std::mem::take(unsure) {
            self.containers.iter_mut().for_each(lose);
        }
    }

    pub(super) fn recover(
        &mut self,
        sandbox: Sandbox,
        alive: bool,
        ips: Vec<IpAddr>,
        mut found: Vec<Found>,
        turned: &mut Turned,
    ) {
        self.sandboxes.push(sandbox.id.clone());
        if !ips.is_empty() {
            self.pod_ips = ips;
        }
        match &mut self.state {
            PodState::Volumes { found, unsure } => {
                *unsure = false;
                *found = Some((sandbox, alive));
            }
            PodState::Ended { sandboxes, .. } => {
                // Its deletion saw none to remove before the runtime spoke.
                if *sandboxes == Sandboxes::Gone {
                    *sandboxes = Sandboxes::Kept;
                }
                if alive {
                    turned.act(Action::StopSandbox { id: sandbox.id });
                }
                return;
            }
            _ => return,
        }
        found.sort_by_key(|found| found.attempt);
        for i in 0..self.containers.len() {
            let name = self.containers[i].name.clone();
            let mut of_it: Vec<_> = found.iter().filter(|found| found.name == name).cloned().collect();
            match of_it.pop() {
                Some(latest) => self.recover_container(i, latest, of_it.pop(), turned),
                None => self.recover_nothing(i, turned),
            }
        }
        self.assume_completed();
    }

    /// The runtime has no run of the container: what the API tells of its end counts, and what follows is decided anew.
    fn recover_nothing(&mut self, i: usize, turned: &mut Turned) {
        lose(&mut self.containers[i]);
        if let ContainerState::Exited { exit_code, .. } = self.containers[i].state {
            self.exited(i, exit_code, false, turned);
        }
    }

    fn recover_container(&mut self, i: usize, latest: Found, earlier: Option<Found>, turned: &mut Turned) {
        let statuses = self.status.init_container_statuses.iter().chain(&self.status.container_statuses);
        let api = statuses.flatten().find(|status| status.name == latest.name.0).cloned();
        let same =
            api.as_ref().filter(|api| api.container_id.as_deref() == Some(&crate::status::container_id(&latest.id)));
        let pod = self.pod.clone();
        let sized = self.sized.spec.as_ref().and_then(|spec| spec.resources.clone());
        let container = &mut self.containers[i];
        let spec = pod.spec.as_ref().and_then(|spec| container.spec(spec));
        if latest.started_at.is_none() && latest.exit.is_none() {
            // It was created and never started: make it anew.
            turned.act(Action::RemoveContainer { container: latest.name, id: latest.id });
            return match earlier {
                Some(earlier) => self.recover_container(i, earlier, None, turned),
                None => self.recover_nothing(i, turned),
            };
        }
        let image_name = spec.map(|spec| spec.image.to_owned()).unwrap_or_default();
        container.ran_here = true;
        if same.is_none()
            && let Some((earlier, exit)) = earlier.as_ref().and_then(|earlier| Some((earlier, earlier.exit.as_ref()?)))
        {
            note_end(container, exit, &earlier.id);
        }
        container.history.kept = earlier.map(|earlier| earlier.id);
        container.history.attempt = Some(latest.attempt);
        container.history.lost = false;
        container.history.facts = Some(Facts {
            id: latest.id.clone(),
            image: Image { name: image_name.clone(), id: latest.image_id, reference: latest.image_ref },
            user: same.and_then(|api| api.user.clone()),
        });
        if let Some(exit) = latest.exit {
            let known = same.is_some_and(|api| api.state.as_ref().is_some_and(|state| state.terminated.is_some()));
            if !known {
                note_end(container, &exit, &latest.id);
            }
            let code = if exit.unknown { 137 } else { exit.code };
            return self.exited(i, code, false, turned);
        }
        let at = latest.started_at.unwrap_or(turned.now.wall);
        let mut run = new_run(&latest.id, &image_name, at, spec.and_then(|spec| spec.common));
        run.post_start = PostStart::Done;
        run.given = given(same, spec.and_then(|spec| spec.resources));
        run.sizes = Sizes::of(sized.as_ref(), Some(&run.given));
        if let Some(api) = same {
            keep_verdicts(&mut run, api);
        }
        if has_probes(&run) {
            turned.act(Action::StartProbes { container: latest.name, id: latest.id });
        }
        container.state = ContainerState::Running { run };
    }

    /// Init containers of which there is no trace have done their work if main containers were made.
    fn assume_completed(&mut self) {
        let main_ran = self.containers.iter().any(|c| c.kind == Kind::Main && c.ran_here);
        for container in self.containers.iter_mut().filter(|container| container.kind == Kind::Init) {
            if main_ran && container.state == ContainerState::Idle {
                container.history.latest = Some(termination::surely_completed());
                container.state = ContainerState::Exited {
                    exit_code: 0,
                    finished: std::time::Duration::ZERO,
                    restart: Restart::Never,
                };
            }
        }
    }
}

/// The Pod with the amounts that it had before: of it as a whole where it has any, and of each container.
fn actual_pod(pod: &Arc<Pod>, statuses: &[ContainerStatus], whole: Option<&ResourceRequirements>) -> Arc<Pod> {
    let mut actual = Pod::clone(pod);
    let Some(spec) = &mut actual.spec else { return Arc::clone(pod) };
    if let (Some(wanted), Some(shown)) = (&mut spec.resources, whole) {
        *wanted = crate::allocated::actual(wanted, shown);
    }
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        let api = statuses.iter().find(|status| status.name == container.name);
        container.resources = Some(given(api, container.resources.as_ref()));
    }
    Arc::new(actual)
}

/// A container of which the runtime has no trace.
fn lose(container: &mut Container) {
    if container.run().is_some() {
        container.history.lose();
        container.history.facts = None;
        container.state = ContainerState::Idle;
    }
}

fn note_end(container: &mut Container, exit: &Exit, id: &str) {
    let end = termination::exited(exit, id);
    let known = container.history.latest.as_ref().is_some_and(|latest| latest.container_id == end.container_id);
    if !known {
        container.history.end(end);
    }
}

/// What the probes had found stands until they find otherwise: Started and Ready do not flip.
fn keep_verdicts(run: &mut Run, api: &ContainerStatus) {
    let keep = |health: &mut Health, verdict: bool| {
        if let Health::Asked { passed, streak_of, .. } = health {
            (*passed, *streak_of) = (verdict, verdict);
        }
    };
    keep(&mut run.startup, api.started == Some(true));
    keep(&mut run.readiness, api.ready);
}
