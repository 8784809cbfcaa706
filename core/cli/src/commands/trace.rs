//! `evenkeel trace`: packets of a running forwarder, stage by stage, as they pass.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use evenkeel_daemon::control;
use evenkeel_sim::capture::{Heading, Link, Seen, Way, Writer};
use serde_json::Value;

use super::{ConfigArgument, ctl};
use crate::{Failure, output};

/// Show packets of a running forwarder, stage by stage, as they pass
///
/// What each stage decided, and how long it took. Ends after --count packets,
/// or with Ctrl-C. One trace runs at a time. While none runs it costs nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = FILTERS)]
pub(crate) struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// The control socket [default: that of the configuration file]
    #[arg(long, value_name = "SOCKET")]
    socket: Option<PathBuf>,
    /// Only packets for which this holds
    #[arg(long, value_name = "FILTER", default_value = "", hide_default_value = true)]
    filter: String,
    /// End after so many packets
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    count: Option<u32>,
    /// Write packets, as they came in and as they left, to this pcapng file;
    /// comments say what became of them
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// One JSON object for each packet
    #[arg(long)]
    json: bool,
}

const FILTERS: &str = "\
Filters are made of
  src|dst|host|net ADDRESS[/BITS]    srcport|dstport|port N[-M]
  proto tcp|udp|icmp|icmpv6          interface NAME
  director NAME   server NAME        reason NAME|any (dropped for it)
joined by and, or, not and parentheses. Addresses and ports are those of the
packet as it came in.

Examples:
  evenkeel trace --filter 'src 10.0.0.0/8 and port 80' --count 20
  evenkeel trace --filter 'director web and reason any' --write drops.pcapng";

/// Bytes of each packet that are kept for the terminal: headers.
const SHOWN_BYTES: u32 = 160;

/// Bytes of each packet that are kept for a file: all.
const WRITTEN_BYTES: u32 = 65_535;

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let socket = arguments.socket.clone().unwrap_or_else(|| ctl::socket_of(&arguments.config));
    let mut file = arguments.write.as_deref().map(Capture::create).transpose()?;
    let bytes = if file.is_some() { WRITTEN_BYTES } else { SHOWN_BYTES };
    let line = format!("trace {} {bytes} {}", arguments.count.unwrap_or(0), arguments.filter);
    let mut listener = Listener { is_json: arguments.json, begun_ns: 0, lost: 0, failed: None };
    let result = control::stream(&socket, line.trim_end(), |value| listener.hear(&value, file.as_mut()));
    if listener.lost > 0 {
        output::complain(&format!(
            "{} packets were not told about: they came faster than they were read",
            listener.lost
        ));
    }
    match (listener.failed, result) {
        (Some(failure), _) => Err(failure),
        (None, Err(error)) => Err(ctl::refused(error)),
        (None, Ok(())) => Ok(()),
    }
}

#[derive(Debug)]
struct Listener {
    is_json: bool,
    begun_ns: u64,
    lost: u64,
    failed: Option<Failure>,
}

impl Listener {
    /// Takes one value. Returns whether to go on.
    fn hear(&mut self, value: &Value, file: Option<&mut Capture>) -> bool {
        if let Some(begun) = value.get("begun") {
            self.begun_ns = number(begun, "at_ns");
            if let Some(file) = file {
                file.offset_ns = number(begun, "unix_ns").saturating_sub(self.begun_ns);
            }
            // Whoever starts programs in turn knows from this line that packets are told of from now on.
            output::complain("tracing; Ctrl-C ends it");
            return true;
        }
        if let Some(end) = value.get("end") {
            self.lost = number(end, "lost");
            return false;
        }
        self.lost = number(value, "lost");
        let Some(packet) = value.get("packet") else { return true };
        let told = match file {
            Some(file) => file.write(packet).map(|()| true),
            None if self.is_json => output::is_taken(&format!("{packet}\n")),
            None => {
                let since = number(packet, "at_ns").saturating_sub(self.begun_ns);
                output::is_taken(&format!("{}\n", evenkeel_explain::trace_text(packet, since)))
            }
        };
        told.unwrap_or_else(|failure| {
            self.failed = Some(failure);
            false
        })
    }
}

fn number(value: &Value, key: &str) -> u64 {
    value.get(key).and_then(Value::as_u64).unwrap_or(0)
}

/// The file that packets are written to.
#[derive(Debug)]
struct Capture {
    writer: Writer<File>,
    path: PathBuf,
    /// The interfaces so far, by name; their places are their numbers.
    interfaces: Vec<String>,
    /// From the forwarder's clock to the time of day.
    offset_ns: u64,
    packets: u64,
}

impl Capture {
    fn create(path: &Path) -> Result<Self, Failure> {
        let failed = |error: io::Error| Failure::Usage(format!("--write {}: {error}", path.display()));
        let writer = Writer::new(File::create(path).map_err(failed)?).map_err(failed)?;
        Ok(Self { writer, path: path.to_owned(), interfaces: Vec::new(), offset_ns: 0, packets: 0 })
    }

    fn write(&mut self, packet: &Value) -> Result<(), Failure> {
        self.copies(packet).map_err(|error| Failure::Runtime(format!("{}: {error}", self.path.display())))
    }

    /// Both copies of a packet: as it came in, and where it left, as it left.
    fn copies(&mut self, packet: &Value) -> io::Result<()> {
        self.packets += 1;
        let text = |key: &str| packet.get(key).and_then(Value::as_str).unwrap_or_default();
        let is = |key: &str| packet.get(key).and_then(Value::as_bool).unwrap_or(false);
        let at_ns = number(packet, "at_ns").saturating_add(self.offset_ns);
        let comment = evenkeel_explain::trace_text(packet, 0);
        let comment = comment.lines().skip(1).collect::<Vec<_>>().join("\n");
        let out = packet.get("end").and_then(|end| end.get("interface")).and_then(Value::as_str);
        let copies = [
            (Way::In, Some(text("interface")), text("before"), is("is_frame")),
            (Way::Out, out, text("after"), is("after_is_frame")),
        ];
        for (way, interface, digits, is_frame) in copies {
            let (Some(interface), Some(bytes)) = (interface, evenkeel_explain::unhex(digits)) else {
                continue;
            };
            if bytes.is_empty() {
                continue;
            }
            let interface = self.interface(interface, is_frame)?;
            let heading = Heading { interface, at_ns, way, packet_id: self.packets };
            self.writer.packet(&Seen { heading, bytes: &bytes, comment: &comment })?;
        }
        // Whoever ends the trace finds all that was shown.
        self.writer.flush()
    }

    fn interface(&mut self, name: &str, is_frame: bool) -> io::Result<u32> {
        if let Some(known) = self.interfaces.iter().position(|known| known == name) {
            return Ok(u32::try_from(known).unwrap_or(0));
        }
        self.interfaces.push(name.to_owned());
        self.writer.interface(name, if is_frame { Link::Ethernet } else { Link::Raw })
    }
}
