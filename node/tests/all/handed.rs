//! A listener that whoever started the node has opened for it.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::fd::OwnedFd,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use quorumgate_node::settings::Settings;

use crate::cli_node::{Node, program};

const PATIENCE: Duration = Duration::from_secs(60);

/// A child that ends with the test.
struct Running(std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It is a child of this test and has nothing to lose.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test without a runtime polls a process")]
fn a_socket_that_was_handed_over_is_served_and_was_never_closed() {
    let given = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = given.local_addr().unwrap();
    let dir = Node::prepare(|settings: &mut Settings| settings.proxy.listeners[0].address = address);
    // As systemd does it, at descriptor 3; a client that comes before the node is there waits for it.
    let mut early = TcpStream::connect(address).unwrap();
    early.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut shell = Command::new("sh");
    shell.args([
        "-c",
        "exec 3<&0 </dev/null; export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$0\" run --proxy-workers 2 --data-dir \"$1\"",
    ]);
    shell.arg(program().get_program()).arg(dir.path().join("n1"));
    let log = std::fs::File::create(dir.path().join("log")).unwrap();
    shell.stdin(Stdio::from(OwnedFd::from(given))).stdout(log.try_clone().unwrap()).stderr(log);
    let _node = Running(shell.spawn().unwrap());
    early.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = String::new();
    early.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 "), "{answer}");
    let ends = Instant::now() + PATIENCE;
    let mut said = String::new();
    while !said.contains("a socket was handed over") {
        assert!(Instant::now() < ends, "{said}");
        std::thread::sleep(Duration::from_millis(20));
        said = std::fs::read_to_string(dir.path().join("log")).unwrap();
    }
}
