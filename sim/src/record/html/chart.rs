//! Line charts: lines and bands over an axis, as inline SVG, with the same values as a table beneath.
//!
//! The table is what a screen reader reads, what the tooltip of the page's script shows, and what remains
//! where there is no script. A chart has at most [`LINES_MAX`] lines, each with its own colour and dashes.

use std::fmt::Write as _;

use super::scale::{Scale, Unit};
use crate::record::markup::escaped;

/// The most lines of a chart: as many as there are colours that everyone can tell apart.
pub(super) const LINES_MAX: usize = 8;
/// The most points of a line, and rows of its table: one for each two units of a wide chart.
pub(super) const POINTS_MAX: usize = 256;
/// With more marks than this they are drawn without their numbers.
pub(super) const MARKS_NUMBERED: usize = 24;

/// How wide a chart is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    /// Two beside each other.
    Half,
    /// The width of the page.
    Whole,
}

/// One axis.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    pub(super) scale: Scale,
    pub(super) unit: Unit,
    pub(super) label: String,
}

/// How a line is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// From point to point.
    Straight,
    /// Level until the next point, and from the last one to the end of the axis.
    Steps,
}

/// One line.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) name: String,
    /// The place in the palette.
    pub(super) style: usize,
    pub(super) form: Form,
    /// A value that is no number leaves a gap.
    pub(super) points: Vec<(f64, f64)>,
    /// For each point, from where to where it may truly lie; may be empty.
    pub(super) band: Vec<(f64, f64)>,
    /// Whether each point is drawn as a dot.
    pub(super) has_dots: bool,
}

/// The values of a chart as a table.
#[derive(Clone, Debug, Default)]
pub(super) struct Values {
    pub(super) head: Vec<String>,
    /// Each row with its value on the axis along which the reader looks.
    pub(super) rows: Vec<(f64, Vec<String>)>,
    /// Whether that is the vertical axis.
    pub(super) is_upright: bool,
}

/// A chart.
#[derive(Clone, Debug)]
pub(super) struct Chart<'a> {
    /// Unlike that of any other chart of the page.
    pub(super) id: &'a str,
    pub(super) title: &'a str,
    /// What a reader should know to understand it.
    pub(super) note: String,
    pub(super) width: Width,
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) lines: Vec<Line>,
    /// Times at which something happened, drawn as upright lines with numbers.
    pub(super) marks: Vec<f64>,
    pub(super) values: Values,
}

/// The room around and within a chart.
#[derive(Clone, Copy)]
struct Frame {
    width: f64,
    height: f64,
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
}

impl Frame {
    fn of(width: Width) -> Self {
        let width = match width {
            Width::Half => 560.0,
            Width::Whole => 1_140.0,
        };
        Self { width, height: 264.0, left: 68.0, right: 14.0, top: 20.0, bottom: 44.0 }
    }

    fn x(self, axis: &Axis, value: f64) -> f64 {
        self.left + axis.scale.place(value) * (self.width - self.left - self.right)
    }

    fn y(self, axis: &Axis, value: f64) -> f64 {
        self.height - self.bottom - axis.scale.place(value) * (self.height - self.top - self.bottom)
    }
}

impl Chart<'_> {
    /// Writes the chart as a figure.
    pub(super) fn write(&self, page: &mut String) -> std::fmt::Result {
        let class = if self.width == Width::Whole { "chart whole" } else { "chart" };
        let (id, title) = (self.id, escaped(self.title));
        write!(page, "<figure class=\"{class}\" id=\"{id}\"><figcaption><h3>{title}</h3>")?;
        if !self.note.is_empty() {
            write!(page, "<p>{}</p>", escaped(&self.note))?;
        }
        page.push_str("</figcaption>");
        self.write_legend(page)?;
        let frame = Frame::of(self.width);
        let Frame { width, height, .. } = frame;
        write!(
            page,
            "<div class=\"plot\"><svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-labelledby=\"{id}-t {id}-d\">\
             <title id=\"{id}-t\">{title}</title><desc id=\"{id}-d\">{}</desc>",
            escaped(&self.description()),
        )?;
        self.write_axes(frame, page)?;
        self.write_marks(frame, page)?;
        let lines: Vec<&Line> = self.lines.iter().take(LINES_MAX).collect();
        for line in &lines {
            self.write_band(frame, line, page)?;
        }
        for line in &lines {
            self.write_line(frame, line, page)?;
        }
        page.push_str("</svg></div>");
        self.write_values(frame, page)?;
        page.push_str("</figure>\n");
        Ok(())
    }

    fn description(&self) -> String {
        let names: Vec<&str> = self.lines.iter().map(|line| &line.name[..]).collect();
        format!("{} over {}: {}.", self.y.label, self.x.label, names.join(", "))
    }

    fn write_legend(&self, page: &mut String) -> std::fmt::Result {
        if self.lines.len() < 2 {
            return Ok(());
        }
        page.push_str("<ul class=\"legend\">");
        for line in self.lines.iter().take(LINES_MAX) {
            let style = line.style % LINES_MAX + 1;
            write!(
                page,
                "<li><svg width=\"26\" height=\"10\" aria-hidden=\"true\"><path class=\"l s{style}\" d=\"M1 5H25\"/></svg>{}</li>",
                escaped(&line.name),
            )?;
        }
        page.push_str("</ul>");
        Ok(())
    }

    fn write_axes(&self, frame: Frame, page: &mut String) -> std::fmt::Result {
        let Frame { width, height, left, right, top, bottom } = frame;
        let base = height - bottom;
        page.push_str("<g class=\"axis\">");
        let mut above = f64::INFINITY;
        for tick in self.y.scale.ticks() {
            let y = frame.y(&self.y, tick);
            // One that would lie on its neighbour is left out.
            if y > above - 15.0 {
                continue;
            }
            above = y;
            let text = escaped(&self.y.unit.show(tick));
            write!(page, "<path class=\"grid\" d=\"M{left:.0} {y:.1}H{:.0}\"/>", width - right)?;
            write!(page, "<text class=\"yt\" x=\"{:.0}\" y=\"{:.1}\">{text}</text>", left - 7.0, y + 4.0)?;
        }
        write!(page, "<path class=\"base\" d=\"M{left:.0} {base:.0}H{:.0}\"/>", width - right)?;
        let mut free = f64::NEG_INFINITY;
        for tick in self.x.scale.ticks() {
            let x = frame.x(&self.x, tick);
            let text = self.x.unit.show(tick);
            let half = 3.5 * crate::record::number::length(text.chars().count());
            write!(page, "<path class=\"base\" d=\"M{x:.1} {base:.0}v4\"/>")?;
            // A number that would lie on its neighbour is left out.
            if x - half > free {
                free = x + half + 6.0;
                write!(
                    page,
                    "<text class=\"xt\" x=\"{x:.1}\" y=\"{:.0}\">{}</text>",
                    base + 17.0,
                    escaped(&text)
                )?;
            }
        }
        let middle = (left + width - right) / 2.0;
        write!(
            page,
            "<text class=\"xl\" x=\"{middle:.0}\" y=\"{:.0}\">{}</text><text class=\"yl\" x=\"{left:.0}\" y=\"{:.0}\">{}</text></g>",
            height - 8.0,
            escaped(&self.x.label),
            top - 9.0,
            escaped(&self.y.label),
        )
    }

    fn write_marks(&self, frame: Frame, page: &mut String) -> std::fmt::Result {
        let is_numbered = self.marks.len() <= MARKS_NUMBERED;
        let mut drawn = None;
        for (mark, number) in self.marks.iter().zip(1..) {
            let x = frame.x(&self.x, *mark);
            let place = format!("{x:.0}");
            // Many marks at the same place are one line.
            if drawn.as_ref() != Some(&place) {
                let (top, base) = (frame.top, frame.height - frame.bottom);
                write!(page, "<path class=\"mark\" d=\"M{x:.1} {top:.0}V{base:.0}\"/>")?;
                if is_numbered {
                    write!(page, "<text class=\"mn\" x=\"{x:.1}\" y=\"{:.0}\">{number}</text>", top - 2.0)?;
                }
            }
            drawn = Some(place);
        }
        Ok(())
    }

    fn write_band(&self, frame: Frame, line: &Line, page: &mut String) -> std::fmt::Result {
        if line.band.is_empty() {
            return Ok(());
        }
        let sides = || line.points.iter().zip(&line.band).filter(|(_, (low, high))| (low + high).is_finite());
        let mut path = String::new();
        for ((x, _), (_, high)) in sides() {
            let letter = if path.is_empty() { 'M' } else { 'L' };
            write!(path, "{letter}{:.1} {:.1}", frame.x(&self.x, *x), frame.y(&self.y, *high))?;
        }
        for ((x, _), (low, _)) in sides().rev() {
            write!(path, "L{:.1} {:.1}", frame.x(&self.x, *x), frame.y(&self.y, *low))?;
        }
        if !path.is_empty() {
            write!(page, "<path class=\"b s{}\" d=\"{path}Z\"/>", line.style % LINES_MAX + 1)?;
        }
        Ok(())
    }

    fn write_line(&self, frame: Frame, line: &Line, page: &mut String) -> std::fmt::Result {
        let style = line.style % LINES_MAX + 1;
        let (mut path, mut is_down, mut dots) = (String::new(), false, String::new());
        for (x, y) in line.points.iter().take(POINTS_MAX * 2) {
            if !(x + y).is_finite() {
                is_down = false;
                continue;
            }
            let (px, py) = (frame.x(&self.x, *x), frame.y(&self.y, *y));
            match (is_down, line.form) {
                (false, _) => write!(path, "M{px:.1} {py:.1}")?,
                (true, Form::Straight) => write!(path, "L{px:.1} {py:.1}")?,
                (true, Form::Steps) => write!(path, "H{px:.1}V{py:.1}")?,
            }
            is_down = true;
            if line.has_dots {
                write!(dots, "<circle class=\"d s{style}\" cx=\"{px:.1}\" cy=\"{py:.1}\" r=\"3\"/>")?;
            }
        }
        if is_down && line.form == Form::Steps {
            // What the last point says holds until the end.
            write!(path, "H{:.1}", frame.width - frame.right)?;
        }
        if !path.is_empty() {
            write!(
                page,
                "<path class=\"l s{style}\" d=\"{path}\"><title>{}</title></path>",
                escaped(&line.name)
            )?;
        }
        page.push_str(&dots);
        Ok(())
    }

    /// The table; each row says where it lies in the picture, for the script.
    fn write_values(&self, frame: Frame, page: &mut String) -> std::fmt::Result {
        if self.values.rows.is_empty() {
            return Ok(());
        }
        let along = if self.values.is_upright { "y" } else { "x" };
        write!(
            page,
            "<details class=\"values\" data-along=\"{along}\" data-frame=\"{:.0} {:.0} {:.0} {:.0}\"><summary>Values</summary>\
             <div class=\"scroll\"><table><thead><tr>",
            frame.left,
            frame.top,
            frame.width - frame.right,
            frame.height - frame.bottom,
        )?;
        for cell in &self.values.head {
            write!(page, "<th scope=\"col\">{}</th>", escaped(cell))?;
        }
        page.push_str("</tr></thead><tbody>");
        for (value, cells) in self.values.rows.iter().take(POINTS_MAX) {
            let place =
                if self.values.is_upright { frame.y(&self.y, *value) } else { frame.x(&self.x, *value) };
            write!(page, "<tr data-p=\"{place:.0}\">")?;
            for cell in cells {
                write!(page, "<td>{}</td>", escaped(cell))?;
            }
            page.push_str("</tr>");
        }
        page.push_str("</tbody></table></div></details>");
        Ok(())
    }
}

/// Writes charts beside each other; one that would stand alone in its line is wide.
pub(super) fn write_all(mut charts: Vec<Chart<'_>>, page: &mut String) -> std::fmt::Result {
    if charts.len() % 2 == 1
        && let Some(last) = charts.last_mut()
    {
        last.width = Width::Whole;
    }
    charts.iter().try_for_each(|chart| chart.write(page))
}

impl Line {
    /// A plain line.
    pub(super) fn new(name: impl Into<String>, style: usize, form: Form, points: Vec<(f64, f64)>) -> Self {
        Self { name: name.into(), style, form, points, band: Vec::new(), has_dots: false }
    }
}

impl Values {
    /// The table of lines that have their points at the same places.
    pub(super) fn of_lines(x: &Axis, y: &Axis, lines: &[Line]) -> Self {
        let mut head = vec![x.label.clone()];
        head.extend(lines.iter().map(|line| line.name.clone()));
        let places = lines.iter().map(|line| &line.points).max_by_key(|points| points.len());
        let rows = places.into_iter().flatten().enumerate().map(|(index, (place, _))| {
            let mut cells = vec![x.unit.show(*place)];
            cells.extend(lines.iter().map(|line| match line.points.get(index) {
                Some((_, value)) if value.is_finite() => y.unit.show(*value),
                _ => "-".to_owned(),
            }));
            (*place, cells)
        });
        Self { head, rows: rows.collect(), is_upright: false }
    }
}
