//! The embedded runtime on the real kernel, as root: sandboxes, containers, their ends, logs, exec, attach, recovery.
//! Each test is an instance of its own, and leaves nothing of it behind.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "embedded/fixture.rs"]
mod fixture;

use fixture::{Node, WithGate, config, run};
use runtime::types::{
    ContainerState, ExecConfig, Mount, NamespaceMode, Resources, Runtime, RuntimeError, RuntimeEvent, SandboxConfig,
    UserNamespace, UserRange,
};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn a_container_runs_logs_and_exits() {
    let node = Node::start().await;
    let pod = node.runtime.run_sandbox(node.sandbox("pod")).await.unwrap();
    assert!(pod.ready);
    let mut events = node.runtime.events();
    let id = node.container(&pod.id, config("c", "echo out; echo err >&2; hostname; exit 3")).await;
    let status = node.runtime.start_container(&id).await.unwrap();
    assert!(matches!(status.state, ContainerState::Running | ContainerState::Exited), "{status:?}");
    let exit = node.exit_of(&mut events, &id).await;
    assert_eq!((exit.code, exit.signal, exit.oom_killed, exit.unknown), (3, 0, false, false));
    let mut lines = node.log("c/0.log");
    // Two pipes have no order between them.
    lines.sort_by_key(|line| line.starts_with("stderr"));
    assert_eq!(lines, ["stdout F out", "stdout F pod", "stderr F err"]);
    let status = node.runtime.container_status(&id).await.unwrap();
    assert_eq!(status.state, ContainerState::Exited);
    assert!(status.started_at_ns > 0 && status.exit.unwrap().finished_at_ns >= status.started_at_ns);
    node.runtime.remove_container(&id).await.unwrap();
    assert!(matches!(node.runtime.container_status(&id).await, Err(RuntimeError::NotFound { .. })));
    node.end(&pod.id).await;
}

#[tokio::test]
async fn stopping_waits_for_the_grace_period() {
    let node = Node::start().await;
    let pod = node.runtime.run_sandbox(node.sandbox("pod")).await.unwrap();
    let mut events = node.runtime.events();
    // One that ends on SIGTERM, and one that does not hear.
    let polite =
        run(&node, &pod.id, config("polite", "trap 'exit 7' TERM; echo up; while :; do sleep 0.01; done")).await;
    let deaf = run(&node, &pod.id, config("deaf", "trap '' TERM; echo up; while :; do sleep 0.01; done")).await;
    node.wait_log("polite/0.log", "up").await;
    node.wait_log("deaf/0.log", "up").await;
    node.runtime.stop_container(&polite, 60_000).await.unwrap();
    assert_eq!(node.exit_of(&mut events, &polite).await.code, 7);
    let before = std::time::Instant::now();
    node.runtime.stop_container(&deaf, 300).await.unwrap();
    let exit = node.exit_of(&mut events, &deaf).await;
    assert_eq!((exit.code, exit.signal), (137, 9));
    let waited = before.elapsed();
    assert!(waited >= Duration::from_millis(295) && waited < Duration::from_secs(3), "{waited:?}");
    node.end(&pod.id).await;
}

#[tokio::test]
async fn programs_that_cannot_start_are_told_in_runcs_words() {
    let node = Node::start().await;
    let pod = node.runtime.run_sandbox(node.sandbox("pod")).await.unwrap();
    let cases: [(&[&str], &str, &str); 5] = [
        (&["nosuchcmd"], "", r#"exec: "nosuchcmd": executable file not found in $PATH"#),
        (&["/no/such/cmd"], "", r#"exec: "/no/such/cmd": stat /no/such/cmd: no such file or directory"#),
        (&["/etc/passwd"], "", r#"exec: "/etc/passwd": permission denied"#),
        (&["/etc"], "", r#"exec: "/etc": is a directory"#),
        (&["true"], "/etc/passwd", "mkdir /etc/passwd: not a directory"),
    ];
    for (command, workdir, text) in cases {
        let mut config = config("c", "");
        config.command = command.iter().map(|c| (*c).to_owned()).collect();
        config.working_dir = workdir.into();
        let id = node.container(&pod.id, config).await;
        let error = node.runtime.start_container(&id).await.unwrap_err();
        assert!(matches!(&error, RuntimeError::Start(t) if t == text), "{command:?}: {error:?}");
        let status = node.runtime.container_status(&id).await.unwrap();
        assert_eq!(status.state, ContainerState::Exited);
        assert_eq!(status.exit.unwrap().code, 128);
        node.runtime.remove_container(&id).await.unwrap();
    }
    node.end(&pod.id).await;
}

#[tokio::test]
async fn programs_for_another_machine_say_so_in_the_log() {
    let node = Node::start().await;
    let pod = node.runtime.run_sandbox(node.sandbox("pod")).await.unwrap();
    let mut events = node.runtime.events();
    for (name, why) in [("garbage", "exec format error"), ("badscript", "no such file or directory")] {
        let mut config = config(name, "");
        config.command = vec![format!("/bin/{name}")];
        let id = run(&node, &pod.id, config).await;
        assert_eq!(node.exit_of(&mut events, &id).await.code, 255);
        assert_eq!(node.log(&format!("{name}/0.log")), [format!("stderr F exec /bin/{name}: {why}")]);
    }
    node.end(&pod.id).await;
}

#[tokio::test]
async fn the_default_seccomp_profile_holds() {
    let node = Node::start().await;
    let pod = node.runtime.run_sandbox(node.sandbox("pod")).await.unwrap();
    let mut events = node.runtime.events();
    let mut config = config("c", "grep Seccomp: /proc/self/status; unshare -U true || echo refused; echo $HOME");
    config.security.seccomp = runtime::types::Seccomp::RuntimeDefault;
    config.security.no_new_privs = true;
    let id = run(&node, &pod.id, config).await;
    assert_eq!(node.exit_of(&mut events, &id).await.code, 0);
    let lines = node.log("c/0.log");
    assert!(lines.contains(&"stdout F Seccomp:\t2".to_owned()), "{lines:?}");
    assert!(lines.contains(&"stdout F refused".to_owned()), "{lines:?}");
    node.end(&pod.id).await;
}

#[tokio::test]
async fn exec_keeps_streams_and_codes_apart() {
    let node = Node::start().await;
    let pod = node.runtime.run_sandbox(node.sandbox("pod")).await.unwrap();
    let id = run(&node, &pod.id, config("c", "sleep 1000")).await;
    let exec = ExecConfig {
        command: ["sh", "-c", "cat; echo err >&2; echo $$; exit 5"].map(Into::into).to_vec(),
        stdin: true,
        stdout: true,
        stderr: true,
        tty: false,
    };
    let mut session = node.runtime.exec(&id, exec).await.unwrap();
    let mut stdin = session.stdin.take().unwrap();
    stdin.write_all(b"in\n").await.unwrap();
    drop(stdin);
    let (mut out, mut err) = (String::new(), String::new());
    session.stdout.as_mut().unwrap().read_to_string(&mut out).await.unwrap();
    session.stderr.as_mut().unwrap().read_to_string(&mut err).await.unwrap();
    assert_eq!(session.exit.await.unwrap().unwrap(), 5);
    assert_eq!((out.lines().next(), err.as_str()), (Some("in"), "err\n"));
    let missing = ExecConfig { command: vec!["nope".into()], stdout: true, ..ExecConfig::default() };
    let error = node.runtime.exec(&id, missing).await.err().unwrap();
    assert_eq!(error.to_string(), r#"exec: "nope": executable file not found in $PATH"#);
    node.end(&pod.id).await;
}

#[tokio::test]
async fn nothing_is_executed_in_and_nobody_attaches_to_what_has_ended() {
    let node = Node::start().await;
    let mut events = node.runtime.events();
    let pod = node.runtime.run_sandbox(node.sandbox("pod")).await.unwrap();
    let id = run(&node, &pod.id, config("c", "true")).await;
    node.exit_of(&mut events, &id).await;
    let wanted = || ExecConfig { command: vec!["true".into()], stdout: true, ..ExecConfig::default() };
    let refused = |session: Result<runtime::types::Session, RuntimeError>| session.err().unwrap().to_string();
    assert_eq!(refused(node.runtime.exec(&id, wanted()).await), "container is in CONTAINER_EXITED state");
    node.runtime.stop_sandbox(&pod.id).await.unwrap();
    assert_eq!(refused(node.runtime.attach(&id, wanted()).await), "container is in CONTAINER_EXITED state");
    node.end(&pod.id).await;
}

#[tokio::test]
async fn an_exec_with_a_terminal_has_a_size() {
    let node = Node::start().await;
    let pod = node.runtime.run_sandbox(node.sandbox("pod")).await.unwrap();
    let id = run(&node, &pod.id, config("c", "sleep 1000")).await;
    let command = "trap 'stty size; exit 0' WINCH; tty; echo ready; while :; do sleep 0.01; done";
    let exec = ExecConfig {
        command: ["sh", "-c", command].map(Into::into).to_vec(),
        stdin: true,
        stdout: true,
        stderr: false,
        tty: true,
    };
    let mut session = node.runtime.exec(&id, exec).await.unwrap();
    let mut stdout = session.stdout.take().unwrap();
    let mut text = String::new();
    let mut resized = false;
    let mut bytes = [0; 256];
    loop {
        let n = stdout.read(&mut bytes).await.unwrap();
        if n == 0 {
            break;
        }
        text.push_str(&String::from_utf8_lossy(&bytes[..n]));
        if text.contains("ready") && !resized {
            session.resize.as_ref().unwrap().send((91, 33)).await.unwrap();
            resized = true;
        }
    }
    assert!(text.starts_with("/dev/pts/0\r\n"), "{text:?}");
    assert!(text.ends_with("33 91\r\n"), "{text:?}");
    assert_eq!(session.exit.await.unwrap().unwrap(), 0);
    node.end(&pod.id).await;
}

#[tokio::test]
async fn a_dropped_exec_is_killed() {
    let node = Node::start().await;
    let pod = node.runtime.run_sandbox(node.sandbox("pod")).await.unwrap();
    let id = run(&node, &pod.id, config("c", "sleep 1000")).await;
    let exec =
        ExecConfig { command: ["sleep", "4711"].map(Into::into).to_vec(), stdout: true, ..ExecConfig::default() };
    let mut session = node.runtime.exec(&id, exec).await.unwrap();
    let mut stdout = session.stdout.take().unwrap();
    drop(session);
    // The pipe ends when the process is gone.
    assert_eq!(stdout.read(&mut [0; 8]).await.unwrap(), 0);
    node.end(&pod.id).await;
}

#[tokio::test]
async fn attach_brings_input_and_output() {
    let node = Node::start().await;
    let pod = node.runtime.run_sandbox(node.sandbox("pod")).await.unwrap();
    let mut config = config("c", "while read line; do echo got $line; done; echo end; exit 4");
    config.stdin = true;
    config.stdin_once = true;
    let id = run(&node, &pod.id, config).await;
    let attach = ExecConfig { stdin: true, stdout: true, stderr: true, ..ExecConfig::default() };
    let mut session = node.runtime.attach(&id, attach).await.unwrap();
    let mut stdin = session.stdin.take().unwrap();
    stdin.write_all(b"a\nb\n").await.unwrap();
    drop(stdin);
    let mut out = String::new();
    session.stdout.as_mut().unwrap().read_to_string(&mut out).await.unwrap();
    assert_eq!(out, "got a\ngot b\nend\n");
    assert_eq!(session.exit.await.unwrap().unwrap(), 4);
    node.end(&pod.id).await;
}

#[tokio::test]
async fn a_terminal_container_is_attached_and_resized() {
    let node = Node::start().await;
    let pod = node.runtime.run_sandbox(node.sandbox("pod")).await.unwrap();
    let mut config = config("c", "read a; stty size; echo $TERM; exit 0");
    config.stdin = true;
    config.tty = true;
    let id = run(&node, &pod.id, config).await;
    let attach = ExecConfig { stdin: true, stdout: true, tty: true, ..ExecConfig::default() };
    let mut session = node.runtime.attach(&id, attach).await.unwrap();
    session.resize.as_ref().unwrap().send((100, 40)).await.unwrap();
    session.stdin.as_mut().unwrap().write_all(b"x\n").await.unwrap();
    let mut out = String::new();
    session.stdout.as_mut().unwrap().read_to_string(&mut out).await.unwrap();
    assert!(out.ends_with("xterm\r\n"), "{out:?}");
    assert_eq!(session.exit.await.unwrap().unwrap(), 0);
    node.end(&pod.id).await;
}

#[tokio::test]
async fn containers_share_what_a_pod_shares() {
    let node = Node::start().await;
    let mut wanted = node.sandbox("shared");
    wanted.pid = NamespaceMode::Pod;
    let pod = node.runtime.run_sandbox(wanted).await.unwrap();
    let mut events = node.runtime.events();
    let server = run(&node, &pod.id, config("a", "echo shm > /dev/shm/x; echo up; nc -l -p 8080 -e echo hello")).await;
    node.wait_log("a/0.log", "up").await;
    let client = run(
        &node,
        &pod.id,
        config(
            "b",
            "cat /dev/shm/x; cat /proc/1/cmdline; echo; until nc 127.0.0.1 8080; do sleep 0.01; done; hostname",
        ),
    )
    .await;
    assert_eq!(node.exit_of(&mut events, &client).await.code, 0);
    let lines = node.log("b/0.log");
    assert_eq!(lines.first().map(String::as_str), Some("stdout F shm"), "{lines:?}");
    assert!(lines[1].contains("/pause"), "{lines:?}");
    assert!(lines.contains(&"stdout F hello".to_owned()) && lines.contains(&"stdout F shared".to_owned()), "{lines:?}");
    let _ = server;
    node.end(&pod.id).await;
}

#[tokio::test]
async fn ports_are_forwarded_into_the_pod() {
    let node = Node::start().await;
    let pod = node.runtime.run_sandbox(node.sandbox("pod")).await.unwrap();
    run(&node, &pod.id, config("c", "echo up; nc -l -p 8080 -e cat")).await;
    node.wait_log("c/0.log", "up").await;
    // `nc` listens a moment after the line.
    let mut stream = loop {
        match node.runtime.port_forward(&pod.id, 8080).await {
            Ok(stream) => break stream,
            Err(e) => assert!(e.to_string().contains("connection refused"), "{e}"),
        }
    };
    stream.write_all(b"through\n").await.unwrap();
    let mut bytes = [0; 8];
    stream.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"through\n");
    let refused = node.runtime.port_forward(&pod.id, 9).await.err().unwrap().to_string();
    assert!(refused.contains("dial tcp4 127.0.0.1:9: connect: connection refused"), "{refused}");
    node.end(&pod.id).await;
}

#[tokio::test]
async fn memory_beyond_the_limit_is_told_as_oom() {
    let node = Node::start().await;
    let pod = node.runtime.run_sandbox(node.sandbox("pod")).await.unwrap();
    let mut events = node.runtime.events();
    let mut hungry = config("hungry", "x=$(head -c 64m /dev/zero | tr '\\0' x); echo ${#x}");
    hungry.resources.memory_limit_bytes = 16 << 20;
    let id = run(&node, &pod.id, hungry).await;
    let exit = node.exit_of(&mut events, &id).await;
    assert!(exit.oom_killed && exit.code != 0, "{exit:?}");
    let calm = run(&node, &pod.id, config("calm", "exit 137")).await;
    assert!(!node.exit_of(&mut events, &calm).await.oom_killed);
    node.end(&pod.id).await;
}

#[tokio::test]
async fn devices_nobody_asked_for_cannot_be_opened() {
    let node = Node::start().await;
    let pod = node.runtime.run_sandbox(node.sandbox("pod")).await.unwrap();
    let mut events = node.runtime.events();
    // Made it may be, whether its driver is there or not.
    let script = "mknod /node c 10 237 && echo made; cat /node; head -c 1 /dev/zero | wc -c";
    let id = run(&node, &pod.id, config("c", script)).await;
    assert_eq!(node.exit_of(&mut events, &id).await.code, 0);
    let lines = node.log("c/0.log");
    for expected in ["stdout F made", "stderr F cat: can't open '/node': Operation not permitted", "stdout F 1"] {
        assert!(lines.iter().any(|line| line == expected), "{lines:?}");
    }
    node.end(&pod.id).await;
}

#[tokio::test]
async fn containers_outlive_the_daemon() {
    let mut node = Node::start().await;
    let pod = node.runtime.run_sandbox(node.sandbox("pod")).await.unwrap();
    let going = run(&node, &pod.id, config("going", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done")).await;
    let ending = run(&node, &pod.id, config("ending", "read x < /gate/pipe; exit 42").with_gate(&node)).await;
    node.restart(|node| node.open_gate()).await;
    let mut events = node.runtime.events();
    let pods = node.runtime.list_sandboxes().await.unwrap();
    assert!(pods.len() == 1 && pods[0].ready && pods[0].id == pod.id);
    let mut status = node.runtime.container_status(&ending).await.unwrap();
    if status.state == ContainerState::Running {
        node.exit_of(&mut events, &ending).await;
        status = node.runtime.container_status(&ending).await.unwrap();
    }
    assert_eq!(status.exit.unwrap().code, 42);
    assert_eq!(node.runtime.container_status(&going).await.unwrap().state, ContainerState::Running);
    let exec = ExecConfig { command: vec!["true".into()], ..ExecConfig::default() };
    let session = node.runtime.exec(&going, exec).await.unwrap();
    assert_eq!(session.exit.await.unwrap().unwrap(), 0);
    node.runtime.stop_container(&going, 0).await.unwrap();
    assert_eq!(node.exit_of(&mut events, &going).await.code, 137);
    let numbers: Vec<u64> =
        node.log("going/0.log").iter().map(|l| l.strip_prefix("stdout F ").unwrap().parse().unwrap()).collect();
    assert!(numbers.windows(2).all(|w| w[1] == w[0] + 1), "no gap in the log");
    node.end(&pod.id).await;
}

#[tokio::test]
async fn a_dead_shim_takes_its_containers_along() {
    let mut node = Node::start().await;
    let pod = node.runtime.run_sandbox(node.sandbox("pod")).await.unwrap();
    let mut events = node.runtime.events();
    let id = run(&node, &pod.id, config("c", "sleep 1000")).await;
    let pid = node.runtime.container_status(&id).await.unwrap().pid.unwrap();
    node.kill_shims();
    let exit = node.exit_of(&mut events, &id).await;
    assert_eq!((exit.code, exit.unknown), (255, true));
    assert_eq!(events.recv().await, Some(RuntimeEvent::SandboxDied { sandbox_id: pod.id.clone() }));
    // At most its record is left, until whoever is the host's first process reads it.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
    let second = node.runtime.run_sandbox(node.sandbox("second")).await.unwrap();
    let id = run(&node, &second.id, config("d", "sleep 1000")).await;
    // The same, with nobody watching.
    node.restart(Node::kill_shims).await;
    let exit = node.runtime.container_status(&id).await.unwrap().exit.unwrap();
    assert_eq!((exit.code, exit.unknown), (255, true));
    node.runtime.remove_sandbox(&second.id).await.unwrap();
    node.end(&pod.id).await;
}

#[tokio::test]
async fn purging_needs_no_daemon() {
    let node = Node::start().await;
    let pod = node.runtime.run_sandbox(node.sandbox("pod")).await.unwrap();
    run(&node, &pod.id, config("c", "sleep 1000")).await;
    node.runtime.run_sandbox(node.sandbox("empty")).await.unwrap();
    node.purge();
}

#[tokio::test]
async fn a_working_directory_in_a_leaked_descriptor_is_refused() {
    // CVE-2024-21626: `/proc/self/fd/N` as the working directory, for whatever the launcher may have open.
    let node = Node::start().await;
    let pod = node.runtime.run_sandbox(node.sandbox("pod")).await.unwrap();
    let mut events = node.runtime.events();
    // As far up as it goes from there is the container's root, or the host's.
    let script = "while [ \"$(stat -c %d:%i .)\" != \"$(stat -c %d:%i ..)\" ]; do cd -P .. || break; done; \
        [ \"$(stat -c %d:%i .)\" = \"$(stat -c %d:%i /)\" ] || echo outside";
    for fd in 3..40 {
        let mut config = config(&format!("c{fd}"), script);
        config.working_dir = format!("/proc/self/fd/{fd}");
        let id = node.container(&pod.id, config).await;
        match node.runtime.start_container(&id).await {
            Err(RuntimeError::Start(_)) => {}
            Ok(_) => {
                node.exit_of(&mut events, &id).await;
                let lines = node.log(&format!("c{fd}/0.log"));
                assert!(lines.is_empty(), "{fd}: {lines:?}");
            }
            Err(e) => panic!("{e:?}"),
        }
    }
    node.end(&pod.id).await;
}

#[tokio::test]
async fn the_shim_cannot_be_reached_from_its_containers() {
    // CVE-2019-5736: through `/proc/PID/exe` of who executes in the container; here with the host's processes in sight.
    let node = Node::start().await;
    let mut wanted = node.sandbox("pod");
    wanted.pid = NamespaceMode::Node;
    let pod = node.runtime.run_sandbox(wanted).await.unwrap();
    let mut events = node.runtime.events();
    let script = "for p in $(grep -l minke-shim /proc/[0-9]*/comm | cut -d/ -f3); do \
        readlink /proc/$p/exe && echo seen; readlink /proc/$p/fd/0 && echo followed; (echo x >> /proc/$p/exe) && echo written; done; true";
    let id = run(&node, &pod.id, config("c", script)).await;
    assert_eq!(node.exit_of(&mut events, &id).await.code, 0);
    let lines = node.log("c/0.log");
    assert!(
        lines.iter().all(|l| !l.ends_with(" seen") && !l.ends_with(" followed") && !l.ends_with(" written")),
        "{lines:?}"
    );
    // With every right it is seen, and still not written.
    let mut config = config("p", script);
    config.security.privileged = true;
    let id = run(&node, &pod.id, config).await;
    assert_eq!(node.exit_of(&mut events, &id).await.code, 0);
    let lines = node.log("p/0.log");
    assert!(lines.iter().any(|l| l.ends_with(" seen")) && lines.iter().all(|l| !l.ends_with(" written")), "{lines:?}");
    // Not only because it runs just now: who keeps the file open could write it later.
    for pid in node.shims() {
        let error = std::fs::File::options().append(true).open(format!("/proc/{pid}/exe")).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem, "{error}");
    }
    node.end(&pod.id).await;
}

#[tokio::test]
async fn a_volume_over_dev_cannot_redirect_masks_or_the_console() {
    // CVE-2025-31133 and 52565: `/dev/null` and `/dev/pts` replaced by links while a container is made.
    use runtime::types::{Mount, Propagation};
    let node = Node::start().await;
    let pod = node.runtime.run_sandbox(node.sandbox("pod")).await.unwrap();
    let trap = node.dir.path().join("trap");
    std::fs::create_dir_all(&trap).unwrap();
    for name in ["null", "console", "pts", "ptmx", "fd"] {
        std::os::unix::fs::symlink("/proc/sysrq-trigger", trap.join(name)).unwrap();
    }
    let masked = vec!["/proc/timer_list".to_owned(), "/etc/passwd".to_owned()];
    for tty in [false, true] {
        let mut config =
            config(if tty { "tty" } else { "plain" }, "head -c1 /etc/passwd | wc -c; ls -l /dev/console; true");
        config.tty = tty;
        config.security.masked_paths.clone_from(&masked);
        config.mounts.push(Mount {
            container_path: "/dev".into(),
            host_path: trap.clone(),
            readonly: false,
            recursive_readonly: false,
            propagation: Propagation::Private,
            image: None,
            image_sub_path: String::new(),
        });
        let id = node.container(&pod.id, config).await;
        let error = node.runtime.start_container(&id).await.unwrap_err();
        assert!(matches!(error, RuntimeError::Start(_)), "{error:?}");
    }
    node.end(&pod.id).await;
}

#[tokio::test]
async fn proc_by_way_of_a_link_is_refused() {
    // CVE-2025-52881: writes to `/proc` misled by what is mounted there instead.
    use runtime::types::{Mount, Propagation};
    let node = Node::start().await;
    let pod = node.runtime.run_sandbox(node.sandbox("pod")).await.unwrap();
    let mut hostile = node.sandbox("sysctl");
    hostile.sysctls.insert("net/../../../etc/x".into(), "1".into());
    assert!(node.runtime.run_sandbox(hostile).await.is_err());
    let mut config = config("c", "true");
    config.mounts.push(Mount {
        container_path: "/../../proc/../etc/../../escaped".into(),
        host_path: node.gate(),
        readonly: true,
        recursive_readonly: false,
        propagation: Propagation::Private,
        image: None,
        image_sub_path: String::new(),
    });
    let id = node.container(&pod.id, config).await;
    node.runtime.start_container(&id).await.unwrap();
    assert!(!std::path::Path::new("/escaped").exists());
    node.end(&pod.id).await;
}

#[tokio::test]
async fn twenty_pods_survive_the_daemon() {
    let mut node = Node::start().await;
    let mut ids = Vec::new();
    for n in 0..20 {
        let pod = node.runtime.run_sandbox(node.sandbox(&format!("pod{n}"))).await.unwrap();
        let script = format!("i=0; while [ ! -e /gate/end ]; do i=$((i+1)); echo $i; sleep 0.05; done; exit {n}");
        ids.push((pod.id.clone(), run(&node, &pod.id, config(&format!("c{n}"), &script).with_gate(&node)).await));
    }
    let shims = node.shims_pss_kib();
    println!("PSS of a shim: {} KiB of {} shims", shims.iter().sum::<u64>() / shims.len() as u64, shims.len());
    node.restart(|node| std::fs::write(node.gate().join("end"), "").unwrap()).await;
    for (n, (pod, container)) in ids.iter().enumerate() {
        let mut events = node.runtime.events();
        if node.runtime.container_status(container).await.unwrap().state == ContainerState::Running {
            node.exit_of(&mut events, container).await;
        }
        let status = node.runtime.container_status(container).await.unwrap();
        assert_eq!(status.exit.unwrap().code, n as i32);
        let log = node.log(&format!("c{n}/0.log"));
        let numbers: Vec<u64> = log.iter().map(|l| l.strip_prefix("stdout F ").unwrap().parse().unwrap()).collect();
        assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
        node.runtime.remove_sandbox(pod).await.unwrap();
    }
    node.purge();
}

#[tokio::test]
async fn what_pods_and_containers_use_is_counted() {
    let node = Node::start().await;
    let pod = node.runtime.run_sandbox(node.sandbox("pod")).await.unwrap();
    let mut events = node.runtime.events();
    let script = "x=$(head -c 20000000 /dev/zero | tr '\\0' x); head -c 1000000 /dev/zero > /file; mkdir /dir; \
        i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; sync; echo up; sleep 1000 & wait; echo $x";
    let mut busy = config("busy", script);
    busy.resources.memory_limit_bytes = 256 << 20;
    let busy = run(&node, &pod.id, busy).await;
    let done = run(&node, &pod.id, config("done", "exit 0")).await;
    node.exit_of(&mut events, &done).await;
    node.wait_log("busy/0.log", "up").await;
    let stats = node.runtime.container_stats(&busy).await.unwrap();
    let usage = stats.usage.unwrap();
    assert!(usage.cpu.core_ns > 1_000_000, "{usage:?}");
    let memory = &usage.memory;
    assert!((20_000_000..256 << 20).contains(&memory.rss_bytes), "{usage:?}");
    assert!(memory.working_set_bytes >= memory.rss_bytes / 2 && memory.working_set_bytes <= memory.usage_bytes);
    assert!(memory.page_faults > 1000, "{usage:?}");
    assert_eq!(memory.limit_bytes, Some(256 << 20));
    assert_eq!(usage.pids, 2);
    let layer = stats.writable_layer.unwrap();
    assert!((1_000_000..1_200_000).contains(&layer.used_bytes), "{layer:?}");
    let all = node.runtime.sandbox_stats(&pod.id).await.unwrap();
    // The kernel adds up in batches of pages, for the Pod's group later than for the container's.
    let (of_pod, of_container) = (all.usage.unwrap().memory.rss_bytes, memory.rss_bytes);
    assert!(of_pod + (1 << 20) >= of_container, "{of_pod} {of_container}");
    // The tests give a Pod no link; its loopback is nobody's traffic.
    assert_eq!(all.network.unwrap().interfaces, []);
    assert_eq!(all.containers.len(), 2);
    let ended = all.containers.iter().find(|container| container.id == done).unwrap();
    assert!(ended.usage.is_none() && ended.writable_layer.is_some());
    let fs = node.runtime.image_fs().await.unwrap();
    assert!(fs.images.used_bytes > 1_000_000 && fs.images.inodes_used > 10, "{fs:?}");
    assert!(fs.containers.used_bytes >= layer.used_bytes, "{fs:?}");
    assert!(matches!(node.runtime.container_stats("none").await, Err(RuntimeError::NotFound { .. })));
    node.end(&pod.id).await;
}

#[tokio::test]
async fn everybody_who_listens_hears_of_everything_in_order() {
    let node = Node::start().await;
    let (mut one, mut other, mut exits) = (node.runtime.events(), node.runtime.events(), node.runtime.events());
    let pod = node.runtime.run_sandbox(node.sandbox("pod")).await.unwrap();
    let short = run(&node, &pod.id, config("short", "exit 4")).await;
    node.exit_of(&mut exits, &short).await;
    let long = run(&node, &pod.id, config("long", "sleep 1000")).await;
    node.runtime.remove_container(&long).await.unwrap();
    node.runtime.stop_sandbox(&pod.id).await.unwrap();
    node.runtime.remove_sandbox(&pod.id).await.unwrap();
    let name = |event: &RuntimeEvent| {
        let id = match event {
            RuntimeEvent::ContainerCreated { container_id, .. }
            | RuntimeEvent::ContainerStarted { container_id, .. }
            | RuntimeEvent::ContainerExited { container_id, .. }
            | RuntimeEvent::ContainerRemoved { container_id, .. } => container_id,
            RuntimeEvent::SandboxStarted { sandbox_id }
            | RuntimeEvent::SandboxDied { sandbox_id }
            | RuntimeEvent::SandboxStopping { sandbox_id }
            | RuntimeEvent::SandboxStopped { sandbox_id }
            | RuntimeEvent::SandboxRemoved { sandbox_id } => sandbox_id,
        };
        let kind = format!("{event:?}").split_once(' ').unwrap().0.to_owned();
        let whose = [(&pod.id, "pod"), (&short, "short"), (&long, "long")];
        format!("{} {kind}", whose.iter().find(|(known, _)| *known == id).unwrap().1)
    };
    let mut told = Vec::new();
    while told.last().is_none_or(|last| last != "pod SandboxRemoved") {
        let event = one.recv().await.unwrap();
        assert_eq!(other.recv().await.unwrap(), event);
        told.push(name(&event));
    }
    // Of one container the order is fixed; one's end and the other's beginning have none.
    let of = |who: &str| -> Vec<&str> { told.iter().filter_map(|t| t.strip_prefix(who)).collect() };
    assert_eq!(of("short "), ["ContainerCreated", "ContainerStarted", "ContainerExited"]);
    assert_eq!(of("long "), ["ContainerCreated", "ContainerStarted", "ContainerExited", "ContainerRemoved"]);
    assert_eq!(of("pod "), ["SandboxStarted", "SandboxStopping", "SandboxStopped", "SandboxRemoved"]);
    node.purge();
}

/// The number in a file of a container's group, under v2's name or v1's.
fn group_file(group: &str, v2: &str, (controller, v1): (&str, &str)) -> String {
    let hierarchies = shim::cgroup::Hierarchies::observe().unwrap();
    let path = match hierarchies.v1_of(controller) {
        Some(mount) => mount.join(group).join(v1),
        None => hierarchies.unified.unwrap().join(group).join(v2),
    };
    std::fs::read_to_string(path).unwrap().trim().to_owned()
}

#[tokio::test]
async fn limits_change_while_it_runs() {
    let mut node = Node::start().await;
    let pod = node.runtime.run_sandbox(node.sandbox("pod")).await.unwrap();
    let script = "x=$(head -c 30000000 /dev/zero | tr '\\0' x); echo up; sleep 1000 & wait; echo $x";
    let mut config = config("c", script);
    config.resources = Resources { cpu_shares: 512, memory_limit_bytes: 256 << 20, ..Resources::default() };
    let id = run(&node, &pod.id, config).await;
    node.wait_log("c/0.log", "up").await;
    let base = std::fs::read_to_string(node.dir.path().join("runtime/cgroup")).unwrap();
    let parent = format!("{base}/pods/burstable/podpod");
    let group = format!("{parent}/{id}");
    let memory = |group: &str| group_file(group, "memory.max", ("memory", "memory.limit_in_bytes"));
    let quota = |group: &str| {
        let text = group_file(group, "cpu.max", ("cpu", "cpu.cfs_quota_us"));
        text.split(' ').next().unwrap().replace("max", "-1")
    };
    for limit in [512 << 20, 128 << 20] {
        let up = Resources {
            cpu_shares: 1024,
            cpu_quota_us: 50_000,
            cpu_period_us: 100_000,
            memory_limit_bytes: limit,
            ..Resources::default()
        };
        node.runtime.update_sandbox_resources(&pod.id, &up).await.unwrap();
        node.runtime.update_container_resources(&id, &up).await.unwrap();
        for group in [&parent, &group] {
            assert_eq!((memory(group), quota(group)), (limit.to_string(), "50000".to_owned()));
        }
    }
    let shares = group_file(&group, "cpu.weight", ("cpu", "cpu.shares"));
    assert!(shares == "1024" || shares == "100", "{shares}");
    // Less than it holds: the kernel's refusal, and nothing is killed or changed.
    let little = Resources { memory_limit_bytes: 8 << 20, ..Resources::default() };
    let error = node.runtime.update_container_resources(&id, &little).await.unwrap_err();
    assert!(error.to_string().contains("Device or resource busy"), "{error}");
    assert_eq!(memory(&group), (128 << 20).to_string());
    // Without a quota again.
    let free = Resources { cpu_quota_us: -1, ..Resources::default() };
    node.runtime.update_container_resources(&id, &free).await.unwrap();
    assert_eq!(quota(&group), "-1");
    let expected = Resources {
        cpu_shares: 1024,
        cpu_quota_us: -1,
        cpu_period_us: 100_000,
        memory_limit_bytes: 128 << 20,
        ..Resources::default()
    };
    assert_eq!(node.runtime.container_status(&id).await.unwrap().resources, expected);
    node.restart(|_| {}).await;
    let status = node.runtime.container_status(&id).await.unwrap();
    assert_eq!((status.state, status.resources), (ContainerState::Running, expected));
    node.end(&pod.id).await;
}

#[tokio::test]
async fn no_line_is_lost_when_a_log_is_rotated() {
    let node = Node::start().await;
    let pod = node.runtime.run_sandbox(node.sandbox("pod")).await.unwrap();
    let mut events = node.runtime.events();
    let id = run(&node, &pod.id, config("c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); echo $i; done")).await;
    let dir = node.dir.path().join("logs/c");
    let mut files = Vec::new();
    for rotation in 0..20 {
        let old = dir.join(format!("0.log.{rotation}"));
        std::fs::rename(dir.join("0.log"), &old).unwrap();
        node.runtime.reopen_log(&id).await.unwrap();
        files.push(old);
    }
    node.exit_of(&mut events, &id).await;
    files.push(dir.join("0.log"));
    let text: String = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    let lines: Vec<&str> = text.lines().map(|line| line.rsplit(' ').next().unwrap()).collect();
    let expected: Vec<String> = (1..=20_000).map(|i| i.to_string()).collect();
    assert_eq!(lines.len(), expected.len());
    assert!(lines.iter().zip(&expected).all(|(line, expected)| line == expected));
    // Of one that has ended there is nothing to reopen, and that is no error.
    node.runtime.reopen_log(&id).await.unwrap();
    node.end(&pod.id).await;
}

/// Runs a command in a container; its output.
async fn exec(node: &Node, id: &str, script: &str) -> String {
    let command = ["sh", "-c", script].map(Into::into).to_vec();
    let exec = ExecConfig { command, stdout: true, stderr: true, ..ExecConfig::default() };
    let mut session = node.runtime.exec(id, exec).await.unwrap();
    let (mut out, mut err) = (String::new(), String::new());
    session.stdout.as_mut().unwrap().read_to_string(&mut out).await.unwrap();
    session.stderr.as_mut().unwrap().read_to_string(&mut err).await.unwrap();
    let code = session.exit.await.unwrap().unwrap();
    format!("{out}{err}{}", if code == 0 { String::new() } else { format!("exit {code}\n") })
}

/// An image's files are root's inside, too; a tmpfs' where the kernel can map it (6.3), and otherwise it is named.
async fn volumes_of_a_user_namespace(node: &Node, pod: &str) {
    let mut events = node.runtime.events();
    let mount = || config("v", "").with_gate(node).mounts.pop().unwrap();
    let mut with_image = config("v", "stat -c '%u %g' /volume /volume/bin");
    let image = mount();
    with_image.mounts.push(Mount {
        container_path: "/volume".into(),
        image: Some(fixture::IMAGE.into()),
        readonly: true,
        ..image
    });
    let id = run(node, pod, with_image).await;
    assert_eq!(node.exit_of(&mut events, &id).await.code, 0);
    assert_eq!(node.log("v/0.log"), ["stdout F 0 0", "stdout F 0 0"]);
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    let mut with_tmpfs = config("t", "stat -c '%u %g' /volume");
    let tmpfs = mount();
    with_tmpfs.mounts.push(Mount { container_path: "/volume".into(), host_path: memory.path().into(), ..tmpfs });
    let id = node.container(pod, with_tmpfs).await;
    match node.runtime.start_container(&id).await {
        Ok(_) => {
            node.exit_of(&mut events, &id).await;
            assert_eq!(node.log("t/0.log"), ["stdout F 0 0"]);
        }
        Err(error) => {
            assert!(shim::sys::kernel_version() < (6, 3), "{error}");
            let named = format!("failed to set MOUNT_ATTR_IDMAP on {}", memory.path().display());
            assert!(error.to_string().contains(&named), "{error}");
        }
    }
}

#[tokio::test]
async fn a_pods_root_is_nobody_on_the_node() {
    use std::os::unix::fs::MetadataExt;
    let mut node = Node::start().await;
    let mut pods = Vec::new();
    for (name, pid) in [("one", NamespaceMode::Container), ("two", NamespaceMode::Pod)] {
        let sandbox = SandboxConfig { users: UserNamespace::Pod(None), pid, ..node.sandbox(name) };
        let pod = node.runtime.run_sandbox(sandbox).await.unwrap();
        let UserNamespace::Pod(Some(range)) = pod.config.users else { panic!("{:?}", pod.config.users) };
        let mut config = config(name, "echo up; exec sleep 1000").with_gate(&node);
        config.security.add_capabilities = vec!["SYS_ADMIN".into()];
        let id = run(&node, &pod.id, config).await;
        node.wait_log(&format!("{name}/0.log"), "up").await;
        pods.push((pod.id, id, range));
    }
    let ranges: Vec<(u32, u32)> = pods.iter().map(|(.., range)| (range.host_uid, range.length)).collect();
    assert_eq!(ranges, [(65_536, 65_536), (131_072, 65_536)]);
    for (pod, id, range) in &pods {
        let pid = node.runtime.container_status(id).await.unwrap().pid.unwrap();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let base = range.host_uid;
        assert!(status.contains(&format!("Uid:\t{base}\t{base}\t{base}\t{base}\n")), "{status}");
        // Its own files, a volume's, the Pod's memory and terminals are root's inside, whatever the node calls them.
        let script = "id -u; echo a > /own; chown 1000:7 /own; stat -c '%u %g' / /bin /own /dev /dev/shm /gate; \
            echo b > /gate/file; touch /dev/shm/x && echo shared";
        let seen = exec(&node, id, script).await;
        assert_eq!(seen, "0\n0 0\n0 0\n1000 7\n0 0\n0 0\n0 0\nshared\n", "{pod}");
        let file = std::fs::metadata(node.gate().join("file")).unwrap();
        assert_eq!((file.uid(), file.gid()), (0, 0));
        std::fs::remove_file(node.gate().join("file")).unwrap();
        // Power over what is the Pod's, none over the node's.
        let script = "hostname inside && hostname; mkdir /m; mount -t tmpfs none /m && echo mounted; \
            umount /proc/kcore 2>/dev/null || umount /proc/sys 2>/dev/null || echo locked; \
            (echo 1 > /proc/sys/kernel/panic) 2>/dev/null && echo too much; kill -0 1; dmesg > /dev/null 2>&1 || echo no";
        let seen = exec(&node, id, script).await;
        // The first process of a shared namespace is the node's.
        let seen: Vec<&str> = seen.lines().filter(|line| !line.contains("can't kill")).collect();
        assert_eq!(seen, ["inside", "mounted", "locked", "no"], "{pod}");
    }
    volumes_of_a_user_namespace(&node, &pods[0].0).await;
    // After a restart nobody gets their users.
    node.restart(|_| {}).await;
    let third = SandboxConfig { users: UserNamespace::Pod(None), ..node.sandbox("three") };
    let third = node.runtime.run_sandbox(third).await.unwrap();
    assert!(matches!(third.config.users, UserNamespace::Pod(Some(UserRange { host_uid: 196_608, .. }))));
    assert_eq!(exec(&node, &pods[0].1, "id -u").await, "0\n");
    let refused = SandboxConfig { users: UserNamespace::Pod(None), network: NamespaceMode::Node, ..node.sandbox("no") };
    assert!(matches!(node.runtime.run_sandbox(refused).await, Err(RuntimeError::Unsupported(_))));
    let refused = SandboxConfig { runtime_handler: "kata".into(), ..node.sandbox("no") };
    let error = node.runtime.run_sandbox(refused).await.unwrap_err().to_string();
    assert_eq!(error, "failed to get sandbox runtime: no runtime for \"kata\" is configured");
    for pod in [&pods[0].0, &pods[1].0] {
        node.runtime.stop_sandbox(pod).await.unwrap();
        node.runtime.remove_sandbox(pod).await.unwrap();
    }
    let again = SandboxConfig { users: UserNamespace::Pod(None), ..node.sandbox("again") };
    let again = node.runtime.run_sandbox(again).await.unwrap();
    assert!(matches!(again.config.users, UserNamespace::Pod(Some(UserRange { host_uid: 65_536, .. }))));
    node.runtime.remove_sandbox(&again.id).await.unwrap();
    node.end(&third.id).await;
}
