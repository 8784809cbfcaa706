//! What a scenario in flow mode can not have: whatever is about packets alone.

use evenkeel_config::document::Named;

use super::Checker;
use crate::report::metric;
use crate::scenario::written::{self, Do};

/// What to do about it.
const HELP: &str = "leave it out, or set `mode = \"packet\"`";

impl Checker<'_, '_> {
    /// Notes what needs packets. Whether targets are such that flow mode has them is known when the configuration of the
    /// forwarders is.
    pub(super) fn without_packets(&mut self, file: &written::File) {
        let mut refuse = |span: &std::ops::Range<usize>, what: String| {
            self.errors.add_with_help(span.clone(), what, Some(HELP.to_owned()));
        };
        if let Some(capture) = &file.capture {
            refuse(&capture.span, "flow mode has no frames to capture".to_owned());
        }
        for (name, load) in Named::entries(file.load.as_ref().map(|at| &at.value)) {
            if let Some(deadline) = &load.value.deadline {
                let message = format!("load {}: clients of flow mode wait without a deadline", name.value);
                refuse(&deadline.span, message);
            }
        }
        for entry in file.timeline.as_ref().map_or(&[][..], |at| at.value.as_slice()) {
            let Some(action) = &entry.value.r#do else { continue };
            match action.value {
                Do::Stop | Do::Start | Do::Hang | Do::Slow | Do::Agent | Do::Weight | Do::RouteSet => {}
                Do::Scheduler
                | Do::Reload
                | Do::LinkDown
                | Do::LinkUp
                | Do::LinkSet
                | Do::RouteDelete
                | Do::ClockJump => {
                    let (name, ..) = super::timeline::rules(action.value);
                    refuse(&action.span, format!("flow mode has no `{name}`"));
                }
            }
        }
        for expect in file.expect.as_ref().map_or(&[][..], |at| at.value.as_slice()) {
            if let Some(name) = expect.value.metric.as_ref().filter(|at| metric::is_about_packets(&at.value))
            {
                refuse(&name.span, format!("flow mode does not measure `{}`", name.value));
            }
        }
    }
}
