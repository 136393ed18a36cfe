//! Rhythm on a paused clock, and the words of each kind of probe.
#![allow(clippy::unwrap_used)]
use super::*;
use serde_json::json;
use std::cell::RefCell;

fn probe(fields: serde_json::Value) -> Probe {
    serde_json::from_value(fields).unwrap()
}

/// Plays one probe on the paused clock for `for_s`: `took_s` and `answers` are its results in turn, the last for ever. Each line tells
/// second and result.
async fn played(kind: ProbeKind, probe: &Probe, took_s: &[u64], answers: &[bool], for_s: u64) -> Vec<String> {
    let origin = Instant::now();
    // The container starts 1.5 s after its Pod came.
    tokio::time::advance(Duration::from_millis(1500)).await;
    let rhythm = Rhythm::of(probe, origin, Instant::now());
    let started = kind != ProbeKind::Startup;
    let (stage, _) = watch::channel(Stage { held: false, started, ending: false });
    let told = RefCell::new(Vec::new());
    let asked = RefCell::new(0_usize);
    let ask = || async {
        let at = Instant::now() - origin;
        let took_s = took_s[(*asked.borrow()).min(took_s.len() - 1)];
        tokio::time::sleep(Duration::from_secs(took_s)).await;
        let mut asked = asked.borrow_mut();
        let success = answers[(*asked).min(answers.len() - 1)];
        *asked += 1;
        told.borrow_mut().push(format!("{} {success}", at.as_secs_f64()));
        Some((success, String::new()))
    };
    let rounds = rounds(kind, probe, rhythm, &stage, ask, |_, _| {});
    let over = tokio::time::timeout(Duration::from_secs(for_s), rounds).await.is_ok();
    let mut told = told.into_inner();
    told.extend(over.then(|| format!("over, started: {}", stage.borrow().started)));
    told
}

#[tokio::test(start_paused = true)]
async fn each_probe_keeps_its_rhythm() {
    let every_3 = probe(json!({"periodSeconds": 3, "failureThreshold": 2}));
    let liveness = played(ProbeKind::Liveness, &every_3, &[0], &[true, false, true, false], 100).await;
    assert_eq!(liveness, ["3 true", "6 false", "9 true", "12 false", "15 false", "over, started: true"]);
    let readiness = played(ProbeKind::Readiness, &every_3, &[0], &[false, true], 7).await;
    assert_eq!(readiness, ["1.5 false", "4.5 true", "7.5 true"]);
    let startup = played(ProbeKind::Startup, &every_3, &[0], &[false, true], 100).await;
    assert_eq!(startup, ["3 false", "6 true", "over, started: true"]);
    let startup = played(ProbeKind::Startup, &every_3, &[0], &[false], 100).await;
    assert_eq!(startup, ["3 false", "6 false", "over, started: false"]);
}

#[tokio::test(start_paused = true)]
async fn delays_and_slow_answers() {
    let delayed = probe(json!({"periodSeconds": 3, "initialDelaySeconds": 5}));
    assert_eq!(played(ProbeKind::Liveness, &delayed, &[0], &[true], 12).await, ["9 true", "12 true"]);
    assert_eq!(played(ProbeKind::Readiness, &delayed, &[0], &[true], 9).await, ["7.5 true", "10.5 true"]);
    // Upstream's worker waits for a Go ticker, which keeps one tick that nobody has taken and drops the others: what was missed
    // comes at once, then the rhythm goes on (asked of Go 1.26 with these very figures in tenths of a second).
    let every_3 = probe(json!({"periodSeconds": 3}));
    let liveness = async |took_s: &[u64], for_s| played(ProbeKind::Liveness, &every_3, took_s, &[true], for_s).await;
    assert_eq!(liveness(&[4], 18).await, ["3 true", "7 true", "11 true", "15 true"]);
    assert_eq!(liveness(&[7, 7, 0], 17).await, ["3 true", "10 true", "17 true", "18 true"]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_asked_while_post_start_runs() {
    let probe = probe(json!({"periodSeconds": 3}));
    let origin = Instant::now();
    let (stage, _) = watch::channel(Stage { held: true, started: true, ending: false });
    let told = RefCell::new(Vec::new());
    let rounds = rounds(
        ProbeKind::Readiness,
        &probe,
        Rhythm::of(&probe, origin, origin),
        &stage,
        || async {
            told.borrow_mut().push((Instant::now() - origin).as_secs());
            Some((true, String::new()))
        },
        |_, _| {},
    );
    let release = async {
        tokio::time::sleep(Duration::from_secs(7)).await;
        stage.send_modify(|stage| stage.held = false);
        tokio::time::sleep(Duration::from_secs(4)).await;
    };
    tokio::select! {
        () = rounds => {}
        () = release => {}
    }
    assert_eq!(told.into_inner(), [7, 10]);
}

#[tokio::test(start_paused = true)]
async fn what_changes_nothing_is_not_told() {
    let probe = probe(json!({"periodSeconds": 1, "successThreshold": 2}));
    let now = Instant::now();
    let (stage, _) = watch::channel(Stage { held: false, started: true, ending: false });
    let answers = RefCell::new([true, true, true, true, false, true, true, true].into_iter());
    let (told, second) = (RefCell::new(Vec::new()), RefCell::new(0));
    let ask = || async {
        *second.borrow_mut() += 1;
        let answer = answers.borrow_mut().next();
        match answer {
            Some(answer) => Some((answer, second.borrow().to_string())),
            None => std::future::pending().await,
        }
    };
    let tell = |success: bool, second: String| told.borrow_mut().push(format!("{second} {success}"));
    let rounds = rounds(ProbeKind::Readiness, &probe, Rhythm::of(&probe, now, now), &stage, ask, tell);
    assert!(tokio::time::timeout(Duration::from_secs(60), rounds).await.is_err());
    assert_eq!(told.into_inner(), ["1 true", "2 true", "5 false", "6 true", "7 true"]);
}

#[test]
fn words() {
    let command = ["sleep".to_owned(), "20".to_owned()];
    assert_eq!(timed_out(&command, Duration::from_secs(1)), "command timed out: \"sleep 20\" timed out after 1s");
    assert_eq!([90, 3600].map(go_seconds), ["1m30s", "1h0m0s"]);
    assert_eq!(crate::hooks::agent("probe", "v1.37.1+minke-0.1.0"), "kube-probe/1.37");
}

#[tokio::test]
async fn sockets() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let second = Duration::from_secs(1);
    assert_eq!(tcp_outcome("127.0.0.1", port, second).await, Outcome::Success);
    drop(listener);
    let words = format!("dial tcp 127.0.0.1:{port}: connect: connection refused");
    assert_eq!(tcp_outcome("127.0.0.1", port, second).await, Outcome::Failure(words));
    let container = serde_json::from_value(json!({"name": "c"})).unwrap();
    let get = http::Get::new(
        &serde_json::from_value(json!({"port": port, "path": "/"})).unwrap(),
        &container,
        "127.0.0.1",
        "kube-probe/1.37",
    );
    let words = format!("Get \"http://127.0.0.1:{port}/\": dial tcp 127.0.0.1:{port}: connect: connection refused");
    assert_eq!(http_outcome(get.unwrap(), second).await, Outcome::Failure(words));
}
