//! Does the test harness do what it says? The rest of the tests stands on it.

#![allow(
    clippy::unwrap_used,
    reason = "clippy only sees #[test] functions as tests, not their helpers"
)]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use support::{Kafka, Mode, Ports, Postgres, Proxy, eventually};

const LIMIT: Duration = Duration::from_secs(10);

/// A server that sends back what it gets, through a proxy; and a client of it.
fn echo() -> (Proxy, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let target = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
        }
    });
    let proxy = Proxy::start(0, &target);
    let client = connect(&proxy);
    (proxy, client)
}

fn connect(proxy: &Proxy) -> TcpStream {
    let client = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).unwrap();
    client.set_read_timeout(Some(LIMIT)).unwrap();
    client
}

#[test]
fn the_proxy_passes_bytes_and_ends_both_ways() {
    let (proxy, mut client) = echo();
    let sent: Vec<u8> = (0..1_000_000u32).map(|i| i.to_le_bytes()[0]).collect();
    let copy = sent.clone();
    let mut writer = client.try_clone().unwrap();
    let writing = std::thread::spawn(move || {
        writer.write_all(&copy).unwrap();
        writer.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let mut got = Vec::new();
    client.read_to_end(&mut got).unwrap();
    writing.join().unwrap();
    assert!(got == sent);
    eventually(LIMIT, "the connection is gone", || proxy.open() == 0);
    assert_eq!(proxy.accepted(), 1);
}

#[test]
fn a_black_hole_swallows_nothing_and_gives_it_back() {
    let (proxy, mut client) = echo();
    client.write_all(b"a").unwrap();
    assert_eq!(client.read(&mut [0; 8]).unwrap(), 1);
    proxy.set(Mode::BlackHole);
    client.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    client.write_all(b"b").unwrap();
    let error = client.read(&mut [0; 8]).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
    let mut other = connect(&proxy);
    other.write_all(b"c").unwrap();
    proxy.set(Mode::Pass);
    client.set_read_timeout(Some(LIMIT)).unwrap();
    assert_eq!(client.read(&mut [0; 8]).unwrap(), 1);
    assert_eq!(other.read(&mut [0; 8]).unwrap(), 1);
}

#[test]
fn what_is_held_arrives_after_the_death_of_who_sent_it() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let proxy = Proxy::start(0, &listener.local_addr().unwrap().to_string());
    let mut client = connect(&proxy);
    let (mut server, _) = listener.accept().unwrap();
    server.set_read_timeout(Some(LIMIT)).unwrap();
    proxy.hold();
    client.write_all(b"held").unwrap();
    eventually(LIMIT, "it is held", || proxy.held() == 4);
    // An answer passes; unread, it makes the client's end a reset.
    server.write_all(b"answer").unwrap();
    assert_eq!(client.peek(&mut [0; 8]).unwrap(), 6);
    drop(client);
    let _new = connect(&proxy);
    let (mut other, _) = listener.accept().unwrap();
    (&_new).write_all(b"new").unwrap();
    assert_eq!(other.read(&mut [0; 8]).unwrap(), 3);
    proxy.let_go();
    let mut got = Vec::new();
    server.read_to_end(&mut got).unwrap();
    assert_eq!(got, b"held");
}

#[test]
fn a_cut_resets_what_is_open_and_what_is_new() {
    let (proxy, mut client) = echo();
    eventually(LIMIT, "it is connected", || proxy.open() == 1);
    proxy.set(Mode::Cut);
    assert_eq!(client.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(connect(&proxy).read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    proxy.set(Mode::Pass);
    let mut client = connect(&proxy);
    client.write_all(b"a").unwrap();
    assert_eq!(client.read(&mut [0; 8]).unwrap(), 1);
    proxy.cut_once();
    assert_eq!(client.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_cut_after_bytes_counts_them_exactly() {
    for mode in [Mode::CutAfter(10_000), Mode::CutAfterSent(10_000)] {
        let (proxy, mut client) = echo();
        proxy.set(mode);
        let _ = client.write_all(&[7; 50_000]);
        let mut got = 0;
        let mut buffer = [0; 4096];
        let error = loop {
            match client.read(&mut buffer) {
                Ok(0) => break None,
                Ok(length) => got += length,
                Err(error) => break Some(error.kind()),
            }
        };
        assert_eq!(error, Some(ErrorKind::ConnectionReset), "{mode:?}");
        assert!(got <= 10_000, "{mode:?}: {got}");
        assert_eq!(got == 10_000, mode == Mode::CutAfter(10_000), "{mode:?}: {got}");
    }
}

#[test]
fn a_slow_link_carries_all_at_its_rate_for_all_together() {
    const EACH: usize = 150_000;
    let (proxy, first) = echo();
    let second = connect(&proxy);
    proxy.set(Mode::Slow(200_000));
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for mut client in [&first, &second] {
            scope.spawn(move || client.write_all(&[7; EACH]).unwrap());
            scope.spawn(move || client.read_exact(&mut [0; EACH]).unwrap());
        }
    });
    // Never faster; how much slower is the machine's affair.
    let took = begin.elapsed();
    assert!(took >= Duration::from_millis(1500), "2 * {EACH} bytes within {took:?}");
    proxy.set(Mode::Slow(1));
    (&first).write_all(&[7; EACH]).unwrap();
    proxy.set(Mode::Pass);
    (&first).read_exact(&mut [0; EACH]).unwrap();
}

#[test]
fn a_database_of_its_own_is_empty_again_with_its_slots_gone() {
    let server = Postgres::shared(17, Ports::HARNESS.postgres(0));
    let name = r"Größe";
    for _ in 0..2 {
        let url = server.database(name);
        assert!(url.ends_with("/Gr%C3%B6%C3%9Fe"), "{url}");
        server.sql_in(name, "create table t(i int)");
        server.sql_in(name, "select pg_create_logical_replication_slot('s', 'pgoutput')");
    }
    assert_eq!(
        server.sql("select count(*), current_setting('wal_level') from pg_replication_slots"),
        "1|logical"
    );
    server.drop_slots(name);
    assert!(server.try_sql("nowhere", "select 1").unwrap_err().contains("does not exist"));
    assert_eq!(server.ctl("pid").parse::<u32>().map(|_| ()), Ok(()));
}

#[test]
fn records_come_back_as_they_are() {
    let ports = Ports::HARNESS;
    let proxied = format!("proxied={}", ports.proxy(0));
    let kafka = Kafka::start("harness", ports.kafka(0), 1, &[&proxied], support::kafka::LATEST);
    let own = format!("127.0.0.1:{}", ports.kafka(0) + 5);
    let proxy = Proxy::start(ports.proxy(0), &own);
    for _ in 0..2 {
        kafka.topic("t", 3);
        assert_eq!(kafka.count("t"), 0);
    }
    let through = kafka.listener("proxied").to_owned();
    let lines = concat!(
        r#"{"partition":2,"key":"1","headers":[["op","c"],["none",null]],"value":"{\"a\":1}"}"#,
        "\n",
        r#"{"partition":1,"key":null,"headers":[],"value":null}"#,
    );
    support::produce(&through, "t", lines);
    assert!(proxy.accepted() > 0);
    let records = kafka.dump_when("t", 2, LIMIT);
    assert_eq!(records.iter().map(|record| record.partition).collect::<Vec<_>>(), [1, 2]);
    assert_eq!((records[0].key.as_deref(), records[0].value.as_deref()), (None, None));
    assert_eq!(records[1].json(), serde_json::json!({"a": 1}));
    assert_eq!(records[1].header("op"), Some("c"));
    assert_eq!(records[1].headers[1], ("none".to_owned(), None));
    assert_eq!(kafka.ctl("all", "pid").parse::<u32>().map(|_| ()), Ok(()));
}
