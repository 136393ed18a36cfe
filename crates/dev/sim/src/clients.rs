//! Clients at work: they make and delete Pods, bind them, count in ConfigMaps, and remember what they were promised.

use crate::cluster::{NODES, Sim};
use crate::door::Outside;
use crate::node;
use api::object::Object;
use api::write::{Target, Verb, Write};
use apiserver::authentication::{MASTERS, User};
use client::transport::{CallError, Transport};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

const NAMESPACE: &str = "default";

fn size(cpu: &str) -> Value {
    json!({"requests": {"cpu": cpu}, "limits": {"cpu": "1"}})
}

struct Client {
    sim: Arc<Sim>,
    number: u64,
    door: Outside,
    /// Names of Pods that were asked for and not deleted.
    pods: Vec<String>,
    made: u64,
    /// What the own ConfigMap counts at least and at most.
    count: (u64, u64),
}

pub(crate) async fn run(sim: Arc<Sim>, number: u64, duration: Duration) {
    let door = Outside { sim: sim.clone(), user: User::component(&format!("client-{number}"), &[MASTERS]) };
    let mut client = Client { sim: sim.clone(), number, door, pods: Vec::new(), made: 0, count: (0, 0) };
    while sim.monotonic() < duration {
        client.act().await;
        tokio::time::sleep(sim.dice.millis(6000)).await;
    }
}

impl Client {
    async fn act(&mut self) {
        match self.sim.dice.below(10) {
            0..=2 if self.pods.len() < 4 => self.make_pod().await,
            3 | 4 if !self.pods.is_empty() => self.delete_pod().await,
            5 if !self.pods.is_empty() => match self.sim.dice.below(3) {
                0 => self.label_pod().await,
                1 => self.resize_pod().await,
                _ => self.debug_pod().await,
            },
            6 => self.compact().await,
            _ => self.count_up().await,
        }
    }

    fn target(plural: &'static str, name: &str, subresource: &'static str) -> Target {
        let (namespace, name) = (NAMESPACE.to_owned(), name.to_owned());
        Target { group: "", version: "v1", plural, namespace, name, subresource }
    }

    /// A write, and if it was acknowledged, the note of it.
    async fn write(&self, verb: Verb, target: Target, body: &Value) -> Result<Arc<Object>, CallError> {
        let (plural, name) = (target.plural, target.name.clone());
        let is_object = target.subresource.is_empty() && verb != Verb::Delete;
        let result = self.door.write(Write { verb, target, body: body.to_string().into() }).await;
        match &result {
            Ok(object) if is_object => {
                self.sim.checks().acknowledge(plural, &object.name, object.revision);
                self.sim
                    .trace(&format!("client {}: {verb:?} {plural}/{}@{}", self.number, object.name, object.revision));
            }
            Ok(_) => self.sim.trace(&format!("client {}: {verb:?} {plural}/{name}", self.number)),
            Err(error) => self.sim.trace(&format!("client {}: {verb:?} {plural}/{name}: {error}", self.number)),
        }
        result
    }

    async fn make_pod(&mut self) {
        self.made += 1;
        let name = format!("pod-{}-{}", self.number, self.made);
        let pod = self.pod(&name);
        // Until it is known to be there: a lost answer may mean yes or no.
        for _ in 0..50 {
            match self.write(Verb::Create, Self::target("pods", "", ""), &pod).await {
                Ok(_) => break,
                Err(error) if error.is_conflict() => break,
                Err(CallError::Status(status)) if matches!(status.code, Some(400..=499)) => {
                    self.sim.trace(&format!("refused: {:?}", status.message));
                    break;
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(500)).await,
            }
        }
        self.pods.push(name.clone());
        if crate::check::has_scheduler() {
            return;
        }
        // Two bind at once; one of them must lose.
        let first = self.bind(name.clone());
        let second = self.bind(name);
        futures::future::join(first, second).await;
    }

    async fn bind(&self, name: String) {
        let node = node::name(usize::try_from(self.sim.dice.below(NODES as u64)).unwrap_or(0));
        let binding = json!({
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        });
        for _ in 0..100 {
            match self.write(Verb::Create, Self::target("pods", &name, "binding"), &binding).await {
                Err(CallError::Unreachable(_)) => tokio::time::sleep(Duration::from_millis(500)).await,
                Err(CallError::Status(status)) if matches!(status.code, Some(500..)) => {
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
                _ => return,
            }
        }
    }

    fn pod(&self, name: &str) -> Value {
        let dice = &self.sim.dice;
        let policy = *dice.pick(&["Always", "Always", "OnFailure", "Never"]);
        let images: &[&str] = match policy {
            "Always" => &["sim/run", "sim/flaky-1", "sim/flaky-3", "sim/stubborn"],
            "OnFailure" => &["sim/exit-0-400", "sim/flaky-2", "sim/run"],
            _ => &["sim/exit-0-700", "sim/exit-3-300", "sim/run", "sim/stubborn"],
        };
        let container = |name: String| {
            let mut container = json!({"name": name, "image": dice.pick(images), "imagePullPolicy": "IfNotPresent", "resources": size("100m")});
            if policy == "Always" && dice.percent(30) {
                container["resizePolicy"] = json!([{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]);
            }
            // Whatever the policy says, a failure is followed by another start, of it or of all.
            if policy == "Always" && dice.percent(30) {
                let action = *dice.pick(&["Restart", "RestartAllContainers"]);
                container["restartPolicy"] = json!("Never");
                container["restartPolicyRules"] =
                    json!([{"action": action, "exitCodes": {"operator": "NotIn", "values": [0]}}]);
            }
            container
        };
        let containers: Vec<Value> = (0..=dice.below(3)).map(|n| container(format!("main-{n}"))).collect();
        let mut inits = Vec::new();
        if dice.percent(30) {
            inits.push(json!({"name": "init-0", "image": "sim/exit-0-200"}));
        }
        if dice.percent(20) {
            inits.push(json!({"name": "sidecar-0", "image": "sim/run", "restartPolicy": "Always"}));
        }
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {
                "restartPolicy": policy,
                "containers": containers,
                "initContainers": inits,
                "terminationGracePeriodSeconds": dice.below(4),
                "automountServiceAccountToken": false,
            },
        })
    }

    async fn delete_pod(&mut self) {
        let index = usize::try_from(self.sim.dice.below(self.pods.len() as u64)).unwrap_or(0);
        let name = self.pods.swap_remove(index);
        let options = match self.sim.dice.below(4) {
            0 => json!({"gracePeriodSeconds": 0}),
            1 => json!({"gracePeriodSeconds": 10}),
            _ => json!({}),
        };
        for _ in 0..100 {
            match self.write(Verb::Delete, Self::target("pods", &name, ""), &options).await {
                Ok(_) => break,
                Err(error) if error.is_not_found() => break,
                Err(_) => tokio::time::sleep(Duration::from_millis(500)).await,
            }
        }
        self.sim.checks().unwanted.insert(name);
    }

    async fn label_pod(&mut self) {
        let name = self.sim.dice.pick(&self.pods).clone();
        let patch = json!({"metadata": {"labels": {"turn": self.sim.dice.below(1000).to_string()}}});
        // Whether it is done does not matter; that it stays done does.
        let _ = self.write(Verb::MergePatch, Self::target("pods", &name, ""), &patch).await;
    }

    /// Gives the first container another size.
    async fn resize_pod(&mut self) {
        let name = self.sim.dice.pick(&self.pods).clone();
        let cpu = format!("{}m", 100 + 50 * self.sim.dice.below(4));
        let patch = json!({"spec": {"containers": [{"name": "main-0", "resources": size(&cpu)}]}});
        let _ = self.write(Verb::StrategicPatch, Self::target("pods", &name, "resize"), &patch).await;
    }

    /// Looks into a Pod with a container that ends by itself.
    async fn debug_pod(&mut self) {
        let name = self.sim.dice.pick(&self.pods).clone();
        self.made += 1;
        let container = format!("debug-{}-{}", self.number, self.made);
        let image = format!("sim/exit-{}-200", self.sim.dice.below(2));
        let patch = json!({"spec": {"ephemeralContainers": [{"name": container, "image": image}]}});
        let _ = self.write(Verb::StrategicPatch, Self::target("pods", &name, "ephemeralcontainers"), &patch).await;
    }

    /// Counts in a ConfigMap of its own by compare-and-write. Nothing counted is ever lost, and nothing counts twice.
    async fn count_up(&mut self) {
        let name = format!("counter-{}", self.number);
        let (verb, target, body) = match self.door.get(&Self::target("configmaps", &name, "")).await {
            Ok(object) => {
                let Ok(mut value) = object.decode::<Value>() else { return self.sim.wrong("a ConfigMap is not JSON") };
                let found = value["data"]["count"].as_str().and_then(|count| count.parse().ok()).unwrap_or(0);
                if found < self.count.0 || found > self.count.1 {
                    self.sim.wrong(format!("{name} counts {found}, and was told {:?}", self.count));
                }
                self.count = (found, found + 1);
                value["data"]["count"] = (found + 1).to_string().into();
                (Verb::Update, Self::target("configmaps", &name, ""), value)
            }
            Err(error) if error.is_not_found() => {
                if self.count.0 > 0 {
                    self.sim.wrong(format!("{name} is gone"));
                }
                self.count = (0, 1);
                let metadata = json!({"name": name, "namespace": NAMESPACE});
                let body =
                    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"count": "1"}});
                (Verb::Create, Self::target("configmaps", "", ""), body)
            }
            Err(_) => return,
        };
        match self.write(verb, target, &body).await {
            Ok(_) => self.count.0 = self.count.1,
            // Nobody else writes to it, but an answer that was lost may have been a yes.
            Err(error) if error.is_conflict() => {}
            Err(_) => {}
        }
    }

    async fn compact(&self) {
        let live = self.sim.live.borrow().clone();
        let Some(live) = live else { return };
        let revision = self.sim.history().revision.saturating_sub(self.sim.dice.below(30));
        let mut ended = self.sim.live.subscribe();
        ended.mark_unchanged();
        tokio::select! {
            biased;
            _ = ended.changed() => {}
            done = store::kv::Kv::compact(&live.store, revision) => self.sim.trace(&format!("compact {revision}: {done:?}")),
        }
    }
}
