//! Cases on real Ethernet interfaces: two stations, each in a network namespace of its own, and the device between
//! them as a bridge would be. The kernels of the stations talk across it.
//!
//! ```text
//! left: eth0 --- near | device | far --- eth0: right
//! ```
//!
//! It needs namespaces, veth and the program `ip`. Where one is missing each case says so and passes.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use evenkeel_engine::InterfaceId;
use evenkeel_engine::device::Device;
use evenkeel_engine::wire::ethernet::MacAddress;

use super::wire::enter_namespace;
use super::{PATIENCE, assert_no_buffer_is_lost, on_both_backends, open, settle, turn};
use crate::buffers::BUFFERS;
use crate::sys::ifreq;
use crate::{DeviceCounters, DeviceError, Ethernet, EthernetOptions, IoChoice, KernelDevice, Waker};

on_both_backends! {
    datagrams_of_every_size_arrive_unchanged,
    super_packets_of_tcp_pass_whole,
    super_packets_of_tcp_are_cut_where_whole_packets_are_wanted,
    frames_of_every_kind_pass_unchanged,
    an_interface_that_goes_down_and_comes_up_is_read_on,
    an_interface_that_is_deleted_is_named,
    frames_to_others_come_only_when_they_are_wanted,
    a_full_queue_of_the_socket_is_counted,
}

const LEFT: Ipv4Addr = Ipv4Addr::new(10, 9, 1, 1);
const RIGHT: Ipv4Addr = Ipv4Addr::new(10, 9, 1, 2);

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A thread in a network namespace of its own, which does what it is told.
struct Station {
    work: Sender<Box<dyn FnOnce() + Send>>,
    thread: JoinHandle<()>,
    namespace: String,
}

impl Station {
    fn new() -> Self {
        let (work, orders) = channel::<Box<dyn FnOnce() + Send>>();
        let (said, hears) = channel();
        let thread = std::thread::spawn(move || {
            assert!(enter_namespace());
            let thread = rustix::thread::gettid();
            said.send(format!("/proc/{}/task/{thread}/ns/net", std::process::id())).unwrap();
            for order in orders {
                order();
            }
        });
        Self { work, thread, namespace: hears.recv().unwrap() }
    }

    /// Has the thread do `work`; what it gives comes by the channel.
    fn start<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Receiver<T> {
        let (said, hears) = channel();
        let order = move || {
            let _ = said.send(work());
        };
        self.work.send(Box::new(order)).unwrap();
        hears
    }

    fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        self.start(work).recv_timeout(PATIENCE).unwrap()
    }

    /// Waits until everything is done.
    fn end(self) {
        drop(self.work);
        self.thread.join().unwrap();
    }
}

/// Two stations joined by two Ethernet interfaces of this thread's namespace; nothing, said aloud, where the system
/// does not allow it.
fn stations() -> Option<[Station; 2]> {
    if Command::new("ip").arg("-V").output().is_err() {
        println!("SKIPPED: there is no program ip");
        return None;
    }
    if !enter_namespace() {
        return None;
    }
    let stations = [Station::new(), Station::new()];
    for (station, (name, address)) in stations.iter().zip([("near", LEFT), ("far", RIGHT)]) {
        let namespace = &station.namespace;
        ip(&format!("link add {name} type veth peer name eth0 netns {namespace}"));
        ip(&format!("link set {name} up"));
        station.run(move || {
            // Nothing of its own accord, so that every frame is one of the test.
            let _ = std::fs::write("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", "1");
            ip("link set eth0 up");
            ip(&format!("address add {address}/24 dev eth0"));
        });
    }
    Some(stations)
}

/// The device over both interfaces, which takes frames in whole.
fn cutting_bridge(choice: IoChoice) -> Option<KernelDevice> {
    let port = |name| {
        let options =
            EthernetOptions { is_promiscuous: true, has_offloads: false, ..EthernetOptions::new(name) };
        Ethernet::open(&options).unwrap()
    };
    open(vec![port("near"), port("far")], choice)
}

fn ethernet(name: &str, is_promiscuous: bool) -> Result<Ethernet, DeviceError> {
    Ethernet::open(&EthernetOptions { is_promiscuous, ..EthernetOptions::new(name) })
}

/// The device over both interfaces.
fn bridge(choice: IoChoice) -> Option<KernelDevice> {
    let ports = vec![ethernet("near", true).unwrap(), ethernet("far", true).unwrap()];
    open(ports, choice)
}

fn other(interface: InterfaceId) -> InterfaceId {
    InterfaceId(1 - interface.0)
}

/// Bridges until both have ended.
fn pump<A, B>(device: &mut KernelDevice, (left, right): (Receiver<A>, Receiver<B>)) -> (A, B) {
    let (mut one, mut two) = (None, None);
    while one.is_none() || two.is_none() {
        one = one.or_else(|| left.try_recv().ok());
        two = two.or_else(|| right.try_recv().ok());
        if turn(device, other) == 0 {
            device.wait(Some(std::time::Duration::from_millis(20))).unwrap();
        }
    }
    calm(device);
    (one.unwrap(), two.unwrap())
}

/// Takes in the completions of what was written. A kernel may still say something of its own accord.
fn calm(device: &mut KernelDevice) {
    let mut quiet = 0;
    while quiet < BUFFERS / 20 {
        quiet = if turn(device, other) == 0 { quiet + 1 } else { 0 };
    }
}

fn udp(address: Ipv4Addr, port: u16) -> UdpSocket {
    let socket = UdpSocket::bind((address, port)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn datagrams_of_every_size_arrive_unchanged(choice: IoChoice) {
    let Some([left, right]) = stations() else { return };
    let Some(mut device) = bridge(choice) else { return };
    let echo = right.run(|| udp(RIGHT, 2000));
    let answers = right.start(move || {
        let mut packet = [0; 2_000];
        for _ in 0..=1_472 {
            let (length, from) = echo.recv_from(&mut packet).unwrap();
            echo.send_to(&packet[..length], from).unwrap();
        }
    });
    let questions = left.start(|| {
        let socket = udp(LEFT, 1000);
        socket.connect((RIGHT, 2000)).unwrap();
        let mut answer = [0; 2_000];
        for size in 0..=1_472 {
            let packet: Vec<u8> =
                (0..size).map(|place| u8::try_from((place * 7 + size) % 251).unwrap()).collect();
            socket.send(&packet).unwrap();
            let length = socket.recv(&mut answer).unwrap();
            assert_eq!(answer[..length], packet);
        }
    });
    pump(&mut device, (questions, answers));
    let counters = device.counters();
    assert!(counters.packets_read >= 2 * 1_473, "{counters:?}");
    assert_eq!(counters.packets_read, counters.packets_written, "{counters:?}");
    assert_eq!(counters.bytes_read, counters.bytes_written, "{counters:?}");
    assert_no_buffer_is_lost(&mut device);
    left.end();
    right.end();
}

fn super_packets_of_tcp_pass_whole(choice: IoChoice) {
    let Some(counters) = across_in_tcp(|| bridge(choice)) else { return };
    assert_eq!(counters.write_errors + counters.refused + counters.short_writes, 0, "{counters:?}");
    let mean = counters.bytes_read / counters.packets_read;
    assert!(mean > 2_000, "frames of {mean} bytes on average are no super-packets: {counters:?}");
    assert_eq!(counters.packets_cut, 0, "{counters:?}");
}

fn super_packets_of_tcp_are_cut_where_whole_packets_are_wanted(choice: IoChoice) {
    let Some(counters) = across_in_tcp(|| cutting_bridge(choice)) else { return };
    assert_eq!(counters.write_errors + counters.refused + counters.short_writes, 0, "{counters:?}");
    assert!(counters.packets_cut > 0, "{counters:?}");
    let mean = counters.bytes_written / counters.packets_written;
    assert!(mean <= 1_514, "frames of {mean} bytes on average leave: {counters:?}");
}

/// 30 MB through the device that `device` makes between two stations, and what it counted.
fn across_in_tcp(device: impl FnOnce() -> Option<KernelDevice>) -> Option<DeviceCounters> {
    const BYTES: usize = 30_000_000;
    let pattern = || (0_u32..).map(|number| number.wrapping_mul(2_654_435_761).to_be_bytes()[0]).take(BYTES);
    let [left, right] = stations()?;
    let mut device = device()?;
    let listener = right.run(|| TcpListener::bind((RIGHT, 2000)).unwrap());
    let taken = right.start(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len(), BYTES);
        assert!(bytes.iter().copied().eq(pattern()), "the bytes arrive as they were sent");
    });
    let given = left.start(move || {
        let mut stream = TcpStream::connect((RIGHT, 2000)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&pattern().collect::<Vec<u8>>()).unwrap();
    });
    pump(&mut device, (given, taken));
    assert_no_buffer_is_lost(&mut device);
    left.end();
    right.end();
    Some(device.counters())
}

const TO_AND_FROM: [u8; 12] = [2, 0, 0, 0, 0, 0x22, 2, 0, 0, 0, 0, 0x11];

/// A frame of `length` bytes behind its type or tags.
fn frame(types: &[u8], length: usize) -> Vec<u8> {
    [&TO_AND_FROM[..], types, &vec![0x5a; length]].concat()
}

fn frames_of_every_kind_pass_unchanged(choice: IoChoice) {
    let Some([left, right]) = stations() else { return };
    let Some(mut device) = bridge(choice) else { return };
    let frames = [
        frame(&[0x88, 0xb5], 50),
        frame(&[0x86, 0xdd], 40),
        frame(&[0x08, 0x06], 46),
        // One tag, one of a provider, and two.
        frame(&[0x81, 0x00, 0x60, 0x07, 0x88, 0xb5], 60),
        frame(&[0x88, 0xa8, 0x00, 0x09, 0x88, 0xb5], 60),
        frame(&[0x88, 0xa8, 0x00, 0x09, 0x81, 0x00, 0x00, 0x07, 0x88, 0xb5], 60),
        frame(&[0x81, 0x00, 0x60, 0x07, 0x88, 0xb5], 1_500),
        // Length instead of a type: spanning tree and its like.
        frame(&[0x00, 0x26], 46),
    ];
    // A station is an Ethernet interface to itself, too: it sends and receives whole frames.
    let receiver = right.run(|| ethernet("eth0", true).unwrap());
    let sent = frames.clone();
    let sending = left.start(move || {
        let mut device = KernelDevice::open(vec![ethernet("eth0", false).unwrap()], IoChoice::Epoll).unwrap();
        for frame in &sent {
            assert!(device.send(InterfaceId(0), frame));
            device.flush();
        }
        assert_eq!(device.counters().write_errors, 0);
    });
    let count = frames.len();
    let receiving = right.start(move || {
        let mut device = KernelDevice::open(vec![receiver], IoChoice::Epoll).unwrap();
        let mut seen = Vec::new();
        while seen.len() < count {
            device.wait(Some(PATIENCE)).unwrap();
            for slot in 0..device.receive() {
                let packet = device.packet(slot);
                let frame = packet.buffer[packet.range].to_vec();
                // The kernel between the stations looks for routers.
                if frame[..12] == TO_AND_FROM {
                    seen.push(frame);
                }
            }
            device.flush();
        }
        seen
    });
    let ((), seen) = pump(&mut device, (sending, receiving));
    for (number, (seen, sent)) in seen.iter().zip(&frames).enumerate() {
        assert!(seen == sent, "frame {number}: {:x?} and not {:x?}", &seen[..32], &sent[..32]);
    }
    assert_no_buffer_is_lost(&mut device);
    left.end();
    right.end();
}

/// Sends a datagram to itself across the bridge, until one comes through.
fn calls_until_heard(waker: &Waker) {
    let socket = UdpSocket::bind((LEFT, 1000)).unwrap();
    socket.set_read_timeout(Some(std::time::Duration::from_millis(50))).unwrap();
    let until = std::time::Instant::now() + PATIENCE;
    let mut bytes = [0; 10];
    loop {
        // The neighbour is forgotten with a link that goes down, and looked for again.
        let _ = socket.send_to(b"still", (RIGHT, 2000));
        waker.wake();
        if socket.recv(&mut bytes).is_ok() {
            return;
        }
        assert!(std::time::Instant::now() < until, "nothing comes through any more");
    }
}

fn an_interface_that_goes_down_and_comes_up_is_read_on(choice: IoChoice) {
    let Some([left, right]) = stations() else { return };
    let Some(mut device) = bridge(choice) else { return };
    let socket = right.run(|| udp(RIGHT, 2000));
    let echo = right.start(move || {
        let mut packet = [0; 100];
        let mut heard = [false; 2];
        while heard != [true; 2] {
            let (length, from) = socket.recv_from(&mut packet).unwrap();
            socket.send_to(&packet[..length], from).unwrap();
            heard[usize::from(from.port() == 1001)] = true;
        }
    });
    let waker = device.waker();
    let first = left.start(move || calls_until_heard(&waker));
    pump_one(&mut device, &first);
    ifreq::bring_down("near").unwrap();
    // A frame that is to leave there meanwhile is counted.
    assert!(device.send(InterfaceId(0), &frame(&[0x88, 0xb5], 50)));
    device.flush();
    while device.counters().links_down == 0 || device.counters().write_errors == 0 {
        device.wait(Some(PATIENCE)).unwrap();
        turn(&mut device, other);
    }
    assert_eq!(device.counters().read_errors, 0, "{:?}", device.counters());
    ifreq::bring_up("near").unwrap();
    let waker = device.waker();
    let again = left.start(move || calls_until_heard(&waker));
    pump_one(&mut device, &again);
    let last = left.start(|| {
        let socket = udp(LEFT, 1001);
        socket.send_to(b"end", (RIGHT, 2000)).unwrap();
        socket.recv(&mut [0; 10]).unwrap();
    });
    pump(&mut device, (last, echo));
    assert_no_buffer_is_lost(&mut device);
    left.end();
    right.end();
}

fn pump_one(device: &mut KernelDevice, end: &Receiver<()>) {
    while end.try_recv().is_err() {
        if turn(device, other) == 0 {
            device.wait(Some(std::time::Duration::from_millis(20))).unwrap();
        }
    }
}

fn an_interface_that_is_deleted_is_named(choice: IoChoice) {
    let Some([left, right]) = stations() else { return };
    let Some(mut device) = bridge(choice) else { return };
    ip("link del far");
    let error = loop {
        turn(&mut device, other);
        match device.wait(Some(PATIENCE)) {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(error.to_string().starts_with("interface far is gone"), "{error}");
    left.end();
    right.end();
}

fn frames_to_others_come_only_when_they_are_wanted(choice: IoChoice) {
    let Some([left, right]) = stations() else { return };
    let own = ethernet("near", false).unwrap().mac();
    let flags = |name: &str| {
        let said = Command::new("ip").args(["-d", "link", "show", name]).output().unwrap();
        String::from_utf8(said.stdout).unwrap()
    };
    let plain = Ethernet::open(&EthernetOptions::new("near")).unwrap();
    assert!(flags("near").contains("promiscuity 0"), "{}", flags("near"));
    assert!(flags("near").contains("allmulti 1"), "{}", flags("near"));
    drop(plain);
    let same = Ethernet::open(&EthernetOptions { mac: Some(own), ..EthernetOptions::new("near") }).unwrap();
    assert!(flags("near").contains("promiscuity 0"), "{}", flags("near"));
    let mac = Some(MacAddress([2, 0, 0, 0, 0, 7]));
    let another = Ethernet::open(&EthernetOptions { mac, ..EthernetOptions::new("near") }).unwrap();
    assert_eq!((same.mac(), another.mac()), (own, MacAddress([2, 0, 0, 0, 0, 7])));
    assert!(flags("near").contains("promiscuity 1"), "{}", flags("near"));
    let device = open(vec![another], choice);
    drop(device);
    assert!(flags("near").contains("promiscuity 0"), "it ends with the device: {}", flags("near"));
    let wanted = EthernetOptions { mtu_bytes: Some(1_600), ..EthernetOptions::new("near") };
    let error = Ethernet::open(&wanted).unwrap_err();
    assert!(error.to_string().contains("MTU of 1500, and 1600 are wanted"), "{error}");
    left.end();
    right.end();
}

fn a_full_queue_of_the_socket_is_counted(choice: IoChoice) {
    let Some([left, right]) = stations() else { return };
    let near = ethernet("near", true).unwrap();
    // As small as the kernel makes it.
    rustix::net::sockopt::set_socket_recv_buffer_size(&near, 1).unwrap();
    left.run(|| {
        let mut device = KernelDevice::open(vec![ethernet("eth0", false).unwrap()], IoChoice::Epoll).unwrap();
        for _ in 0..100 {
            assert!(device.send(InterfaceId(0), &frame(&[0x88, 0xb5], 1_000)));
            device.flush();
        }
    });
    let Some(mut device) = open(vec![near], choice) else { return };
    while turn(&mut device, |interface| interface) > 0 {}
    let counters = device.counters();
    assert!(counters.queue_overflows > 0, "{counters:?}");
    assert_eq!(device.counters().queue_overflows, counters.queue_overflows, "asking again adds nothing");
    assert_eq!(counters.queue_overflows + counters.packets_read, 100, "{counters:?}");
    settle(&mut device);
    assert_no_buffer_is_lost(&mut device);
    left.end();
    right.end();
}
