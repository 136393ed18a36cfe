//! A node's container runtime: it outlives every process, as shims do.
//!
//! What a container does stands in its image: `sim/run` runs until it is stopped, `sim/exit-CODE-MS` ends by itself,
//! `sim/flaky-TIMES` fails so many times and then runs, `sim/stubborn` does not listen to the stop signal.

use crate::cluster::Sim;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

#[derive(Debug, Clone)]
pub(crate) struct Sandbox {
    pub(crate) id: String,
    pub(crate) uid: String,
    pub(crate) attempt: u32,
    pub(crate) ready: bool,
    pub(crate) ip: std::net::IpAddr,
}

#[derive(Debug, Clone)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) sandbox: String,
    pub(crate) uid: String,
    pub(crate) name: String,
    pub(crate) attempt: u32,
    pub(crate) image: String,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) exit: Option<Exited>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Exited {
    pub(crate) code: i32,
    pub(crate) at: Timestamp,
}

impl Container {
    pub(crate) fn runs(&self) -> bool {
        self.started_at.is_some() && self.exit.is_none()
    }
}

#[derive(Debug, Clone)]
pub(crate) enum Event {
    Exited(Container),
    Removed(Container),
    SandboxDied(Sandbox),
}

/// The runtime says no.
#[derive(Debug)]
pub(crate) struct NotFound;

#[derive(Default)]
struct Inner {
    sandboxes: BTreeMap<String, Sandbox>,
    containers: BTreeMap<String, Container>,
    subscriber: Option<UnboundedSender<Event>>,
    next_id: u64,
    started: u64,
}

pub(crate) struct Runtime {
    number: usize,
    inner: Arc<Mutex<Inner>>,
    /// Processes that will end by themselves.
    timers: Mutex<JoinSet<()>>,
}

impl Runtime {
    pub(crate) fn new(number: usize) -> Self {
        Self { number, inner: Arc::default(), timers: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn subscribe(&self) -> UnboundedReceiver<Event> {
        let (sender, receiver) = unbounded_channel();
        self.lock().subscriber = Some(sender);
        receiver
    }

    pub(crate) fn unsubscribe(&self) {
        self.lock().subscriber = None;
    }

    pub(crate) fn end(&self) {
        self.timers.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
    }

    pub(crate) fn sandboxes(&self) -> Vec<Sandbox> {
        self.lock().sandboxes.values().cloned().collect()
    }

    pub(crate) fn containers(&self) -> Vec<Container> {
        self.lock().containers.values().cloned().collect()
    }

    pub(crate) fn started(&self) -> u64 {
        self.lock().started
    }

    pub(crate) fn run_sandbox(&self, sim: &Sim, uid: &str, attempt: u32) -> Sandbox {
        let mut inner = self.lock();
        inner.next_id += 1;
        let id = format!("sandbox-{}-{}", self.number, inner.next_id);
        let ip = std::net::Ipv4Addr::new(10, 244, self.number as u8, (inner.next_id % 250) as u8 + 1).into();
        let sandbox = Sandbox { id: id.clone(), uid: uid.to_owned(), attempt, ready: true, ip };
        if inner.sandboxes.values().any(|other| other.uid == uid && other.ready) {
            sim.wrong(format!("Pod {uid} gets a second sandbox while the first is up"));
        }
        sim.trace(&format!("sandbox {id} of {uid}"));
        inner.sandboxes.insert(id, sandbox.clone());
        sandbox
    }

    pub(crate) fn create(&self, sandbox: &str, name: &str, attempt: u32, image: &str) -> Result<String, NotFound> {
        let mut inner = self.lock();
        let uid = inner.sandboxes.get(sandbox).filter(|sandbox| sandbox.ready).ok_or(NotFound)?.uid.clone();
        inner.next_id += 1;
        let id = format!("container-{}-{}", self.number, inner.next_id);
        let (sandbox, name, image) = (sandbox.to_owned(), name.to_owned(), image.to_owned());
        let container = Container { id: id.clone(), sandbox, uid, name, attempt, image, started_at: None, exit: None };
        inner.containers.insert(id.clone(), container);
        Ok(id)
    }

    pub(crate) fn start(&self, sim: &Arc<Sim>, id: &str) -> Result<Timestamp, NotFound> {
        let now = sim.wall();
        let mut inner = self.lock();
        let container = inner.containers.get(id).cloned().ok_or(NotFound)?;
        if !inner.sandboxes.get(&container.sandbox).is_some_and(|sandbox| sandbox.ready) {
            return Err(NotFound);
        }
        let same = |other: &&Container| other.uid == container.uid && other.name == container.name && other.runs();
        if let Some(other) = inner.containers.values().find(same) {
            sim.wrong(format!("{} of Pod {} starts while {} still runs", container.name, container.uid, other.id));
        }
        sim.trace(&format!("start {id}: {} {} of {}", container.name, container.attempt, container.uid));
        inner.started += 1;
        if let Some(container) = inner.containers.get_mut(id) {
            container.started_at = Some(now);
        }
        drop(inner);
        if let Some((code, after)) = own_end(&container.image, container.attempt) {
            self.exit_after(sim, id, code, after);
        }
        Ok(now)
    }

    /// Stop signal, then SIGKILL at the end of the grace period.
    pub(crate) fn stop(&self, sim: &Arc<Sim>, id: &str, grace: Duration) -> Result<(), NotFound> {
        let container = self.lock().containers.get(id).cloned().ok_or(NotFound)?;
        let heeds = !container.image.starts_with("sim/stubborn");
        let reaction = sim.dice.millis(500);
        let (code, after) = if heeds && reaction < grace { (0, reaction) } else { (137, grace) };
        self.exit_after(sim, id, code, after);
        Ok(())
    }

    fn exit_after(&self, sim: &Arc<Sim>, id: &str, code: i32, after: Duration) {
        let (inner, sim, id) = (self.inner.clone(), sim.clone(), id.to_owned());
        let mut timers = self.timers.lock().unwrap_or_else(PoisonError::into_inner);
        while timers.try_join_next().is_some() {}
        timers.spawn(async move {
            tokio::time::sleep(after).await;
            exit(&mut inner.lock().unwrap_or_else(PoisonError::into_inner), &sim, &id, code);
        });
    }

    pub(crate) fn remove(&self, id: &str) {
        self.lock().containers.remove(id);
    }

    pub(crate) fn stop_sandbox(&self, sim: &Sim, id: &str) {
        let mut inner = self.lock();
        end_sandbox(&mut inner, sim, id);
    }

    pub(crate) fn remove_sandbox(&self, sim: &Sim, id: &str) {
        let mut inner = self.lock();
        end_sandbox(&mut inner, sim, id);
        inner.containers.retain(|_, container| container.sandbox != id);
        inner.sandboxes.remove(id);
        sim.trace(&format!("removed {id}"));
    }

    /// A sandbox dies.
    pub(crate) fn lose_sandbox(&self, sim: &Sim) {
        let mut inner = self.lock();
        let ready: Vec<Sandbox> = inner.sandboxes.values().filter(|sandbox| sandbox.ready).cloned().collect();
        if ready.is_empty() {
            return;
        }
        let mut sandbox = sim.dice.pick(&ready).clone();
        sim.trace(&format!("{} dies", sandbox.id));
        end_sandbox(&mut inner, sim, &sandbox.id);
        sandbox.ready = false;
        tell(&inner, Event::SandboxDied(sandbox));
    }

    /// Somebody removes a container by hand.
    pub(crate) fn lose_container(&self, sim: &Sim) {
        let mut inner = self.lock();
        let all: Vec<Container> = inner.containers.values().filter(|container| container.runs()).cloned().collect();
        if all.is_empty() {
            return;
        }
        let container = sim.dice.pick(&all).clone();
        sim.trace(&format!("{} is removed by hand", container.id));
        inner.containers.remove(&container.id);
        tell(&inner, Event::Removed(container));
    }
}

fn tell(inner: &Inner, event: Event) {
    if let Some(subscriber) = &inner.subscriber {
        // Nobody listens while the process is down; it asks when it comes back.
        let _ = subscriber.send(event);
    }
}

fn exit(inner: &mut Inner, sim: &Sim, id: &str, code: i32) {
    let Some(container) = inner.containers.get_mut(id).filter(|container| container.runs()) else { return };
    container.exit = Some(Exited { code, at: sim.wall() });
    sim.trace(&format!("exit {id}: {code}"));
    let container = container.clone();
    tell(inner, Event::Exited(container));
}

fn end_sandbox(inner: &mut Inner, sim: &Sim, id: &str) {
    let running: Vec<String> = inner
        .containers
        .values()
        .filter(|container| container.sandbox == id && container.runs())
        .map(|container| container.id.clone())
        .collect();
    for container in running {
        exit(inner, sim, &container, 137);
    }
    if let Some(sandbox) = inner.sandboxes.get_mut(id) {
        sandbox.ready = false;
    }
}

/// How and when a container ends without being asked to.
fn own_end(image: &str, attempt: u32) -> Option<(i32, Duration)> {
    let words: Vec<&str> = image.strip_prefix("sim/")?.split('-').collect();
    match words.as_slice() {
        ["exit", code, ms] => Some((code.parse().ok()?, Duration::from_millis(ms.parse().ok()?))),
        ["flaky", times] if attempt < times.parse().ok()? => Some((1, Duration::from_millis(300))),
        _ => None,
    }
}
