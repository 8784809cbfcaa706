//! Records on paper: as JSON, there and back, and the hash of the numbers in one.

use std::hash::Hasher;
use std::io::{self, Write};

use serde::Serialize;
use siphasher::sip::SipHasher13;

use super::data::{
    Cost, Drop, ExpectationRecord, Flows, ForwarderRecord, LoadRecord, Mark, Mode, Packets, Parameter,
    RunRecord, SCHEMA, Series, ServerRecord,
};
use super::histogram::Histogram;

/// The largest `result.json` that is read: that of a run with 65,536 servers has a tenth of it.
pub const FILE_MAX_BYTES: u64 = 256 << 20;

/// Why a record cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// It is no JSON, or not that of a record.
    #[error("no record of a run: {0}")]
    Form(String),
    /// It is of another version of the program.
    #[error("form {found} of a record; this program reads form {SCHEMA}; run the scenario again")]
    Schema {
        /// The form that it says.
        found: u64,
    },
    /// It is longer than any record.
    #[error("{bytes} bytes long; a record has at most {FILE_MAX_BYTES}")]
    TooLong {
        /// How long.
        bytes: u64,
    },
}

/// What the hash of a record covers: every number, and not who made it when with which command.
#[derive(Serialize)]
struct Hashed<'a> {
    schema: u32,
    mode: Mode,
    parameters: &'a [Parameter],
    answers: &'a str,
    elapsed_ns: u64,
    warmup_ns: u64,
    events: u64,
    flows: &'a Flows,
    packets: &'a Packets,
    drops: &'a [Drop],
    loads: &'a [LoadRecord],
    servers: &'a [ServerRecord],
    forwarders: Vec<ForwarderRecord>,
    latency: &'a Histogram,
    series: &'a Series,
    timeline: &'a [Mark],
    findings: &'a [String],
    expectations: &'a [ExpectationRecord],
}

/// A forwarder without what its schedulers cost: instructions and bytes are those of one build of a component, and a run
/// is the same when they are not.
fn without_cost(forwarder: &ForwarderRecord) -> ForwarderRecord {
    let cost = Cost { instructions: None, memory_bytes: None, ..forwarder.cost };
    ForwarderRecord { cost, ..forwarder.clone() }
}

/// A writer into a hash.
struct Sink(SipHasher13);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl RunRecord {
    /// The record is complete: it gets its form and the hash of its numbers.
    pub fn seal(&mut self) {
        self.schema = SCHEMA;
        let hashed = Hashed {
            schema: self.schema,
            mode: self.mode,
            parameters: &self.parameters,
            answers: &self.chains.answers.hash,
            elapsed_ns: self.elapsed_ns,
            warmup_ns: self.warmup_ns,
            events: self.events,
            flows: &self.flows,
            packets: &self.packets,
            drops: &self.drops,
            loads: &self.loads,
            servers: &self.servers,
            forwarders: self.forwarders.iter().map(without_cost).collect(),
            latency: &self.latency,
            series: &self.series,
            timeline: &self.timeline,
            findings: &self.findings,
            expectations: &self.expectations,
        };
        let mut sink = Sink(SipHasher13::new());
        // Neither numbers and texts nor the sink can refuse.
        let written = serde_json::to_writer(&mut sink, &hashed);
        debug_assert!(written.is_ok());
        self.hashes.metrics = format!("{:016x}", sink.0.finish());
    }

    /// The record as JSON, with a line's end at its end.
    #[must_use]
    pub fn to_json(&self) -> String {
        // A record is of numbers, texts and lists of them, which JSON always has a form for.
        let mut text = serde_json::to_string(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// Reads a record.
    ///
    /// # Errors
    /// When the text is no record of this form.
    pub fn read(text: &str) -> Result<Self, ReadError> {
        #[derive(serde::Deserialize)]
        struct Form {
            schema: Option<u64>,
        }
        let bytes = u64::try_from(text.len()).unwrap_or(u64::MAX);
        if bytes > FILE_MAX_BYTES {
            return Err(ReadError::TooLong { bytes });
        }
        let wrong = |error: serde_json::Error| ReadError::Form(error.to_string());
        let form: Form = serde_json::from_str(text).map_err(wrong)?;
        match form.schema {
            Some(found) if found == u64::from(SCHEMA) => serde_json::from_str(text).map_err(wrong),
            Some(found) => Err(ReadError::Schema { found }),
            None => Err(ReadError::Form("it has no schema".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::example;
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let record = example::record(1, "maglev", 6);
        let text = record.to_json();
        let read = RunRecord::read(&text).unwrap();
        assert!(read == record);
        assert!(read.to_json() == text);
    }

    #[test]
    fn the_hash_covers_the_numbers_and_not_the_circumstances() {
        let base = example::record(1, "maglev", 6);
        let hash = |change: &dyn Fn(&mut RunRecord)| {
            let mut record = base.clone();
            change(&mut record);
            record.seal();
            record.hashes.metrics
        };
        assert_eq!(hash(&|_| {}), base.hashes.metrics);
        assert_eq!(hash(&|record| record.command = "another".to_owned()), base.hashes.metrics);
        assert_eq!(hash(&|record| record.version = "9".to_owned()), base.hashes.metrics);
        assert_ne!(hash(&|record| record.flows.broken += 1), base.hashes.metrics);
        assert_ne!(hash(&|record| record.chains.answers.hash.push('0')), base.hashes.metrics);
        assert_ne!(hash(&|record| record.latency.record(1)), base.hashes.metrics);
        assert_ne!(hash(&|record| record.series.servers[0].requests[3] += 1), base.hashes.metrics);
        assert_ne!(hash(&|record| record.findings.push("Wrong.".to_owned())), base.hashes.metrics);
    }

    #[test]
    fn what_is_no_record_is_refused_with_a_reason() {
        let refused = |text: &str| RunRecord::read(text).unwrap_err().to_string();
        assert!(refused("{").starts_with("no record of a run: "));
        assert!(refused("{}").contains("no schema"));
        assert!(refused(r#"{"schema": 1}"#).contains("form 1 of a record; this program reads form 2"));
        assert!(refused(r#"{"schema": 2}"#).contains("missing field"));
    }
}
