use super::{LONG, Supervised};
use crate::support::children::poll_until;
use crate::support::{Bundle, Container, own_engine};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketType, connect, recv, send, socket};
use std::os::fd::OwnedFd;
use std::time::Duration;

fn dial(container: &Container) -> OwnedFd {
    let directory = std::fs::File::open(container.runtime.root().join(&container.id)).expect("open the state");
    let path = format!("/proc/self/fd/{}/smaster.sock", std::os::fd::AsRawFd::as_raw_fd(&directory));
    let peer = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).expect("make a socket");
    let address = SocketAddrUnix::new(path).expect("an address");
    let connected = poll_until(LONG, || connect(&peer, &address).ok());
    connected.expect("connect to smaster");
    rustix::net::sockopt::set_socket_timeout(&peer, rustix::net::sockopt::Timeout::Recv, Some(Duration::from_secs(30)))
        .expect("a time-out");
    peer
}

fn answer(peer: &OwnedFd) -> String {
    let mut buffer = vec![0; 1 << 17];
    let length = recv(peer, &mut *buffer, RecvFlags::empty()).map_or(0, |(length, _)| length);
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

/// Whatever is said there, the container runs on and smaster with it.
#[test]
fn bad_input_harms_nobody() {
    let runtime = own_engine!();
    let bundle = Bundle::shell("while read x; do echo got $x; done");
    let container = Container::new(&runtime, &bundle);
    container.supervise(&["--interactive"]).ok();
    let smaster = container.smaster();
    let said: [&[u8]; 9] = [
        b"x",
        b"{",
        b"\xff\xfe",
        b"\0typed without being attached",
        br#"{"version":2,"request":"hello"}"#,
        br#"{"version":1,"request":"explode"}"#,
        br#"{"version":1,"request":"hello","more":1}"#,
        br#"{"version":1,"request":"resize","rows":-1}"#,
        &[b'{'; 100_000],
    ];
    for words in said {
        let peer = dial(&container);
        send(&peer, words, SendFlags::NOSIGNAL).expect("say something");
        let text = answer(&peer);
        assert!(
            text.contains("\"error\""),
            "{:?} is answered by {text}",
            String::from_utf8_lossy(&words[..words.len().min(50)])
        );
        assert_eq!(answer(&peer), "", "and the connection ends");
    }
    let hello = dial(&container);
    send(&hello, br#"{"version":1,"request":"hello"}"#, SendFlags::NOSIGNAL).expect("say hello");
    assert_eq!(answer(&hello), r#"{"version":1,"terminal":false}"#);
    // Many that say nothing, and some that do not listen.
    let silent: Vec<_> = (0..300).map(|_| dial(&container)).collect();
    let deaf: Vec<_> = (0..5)
        .map(|_| {
            let peer = dial(&container);
            send(&peer, br#"{"version":1,"request":"attach"}"#, SendFlags::NOSIGNAL).expect("attach");
            peer
        })
        .collect();
    let attached = runtime.invoke(&["attach", "--detach-keys", "ctrl-a", &container.id]).input("a\n").run();
    assert_eq!(attached.code, 0, "{attached:?}");
    assert_eq!(container.wait(), 0);
    assert_eq!(runtime.run(&["logs", &container.id]).ok().stdout, "got a\n");
    drop((silent, deaf));
    super::wait_gone(smaster);
}
