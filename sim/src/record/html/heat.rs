//! Heat maps: rows of servers, columns of time, and the darker the more.
//!
//! What is more than a page can show is drawn together: neighbouring servers as their mean, neighbouring
//! intervals as well.

use std::fmt::Write as _;

use super::scale::Unit;
use crate::record::markup::{escaped, shortened};
use crate::record::number::{self, length};

/// The most rows.
pub(super) const ROWS_MAX: usize = 48;
/// The most columns.
pub(super) const COLUMNS_MAX: usize = 128;
/// Shades, from nothing to the most.
const SHADES: usize = 9;
/// The width of the picture, of the names in it, and what is left free to the right.
const WIDTH: usize = 1_140;
const NAMES: usize = 150;
const MARGIN: usize = 14;

/// A heat map.
#[derive(Clone, Debug)]
pub(super) struct Heat<'a> {
    /// Unlike that of any other figure of the page.
    pub(super) id: &'a str,
    pub(super) title: &'a str,
    /// What a reader should know to understand it.
    pub(super) note: String,
    /// What the numbers are.
    pub(super) label: &'a str,
    pub(super) unit: Unit,
    /// The names of the rows.
    pub(super) names: Vec<String>,
    /// The values of each row.
    pub(super) rows: Vec<Vec<f64>>,
    /// The length of a column in nanoseconds.
    pub(super) interval: f64,
}

impl Heat<'_> {
    /// Writes the map as a figure.
    pub(super) fn write(&self, page: &mut String) -> std::fmt::Result {
        let (names, rows, interval) = self.reduced();
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        if columns == 0 {
            return Ok(());
        }
        let most = rows.iter().flatten().copied().fold(0.0, f64::max);
        let row_height = (360 / rows.len().max(1)).clamp(8, 22);
        let height = rows.len() * row_height + 46;
        let cell = length(WIDTH - NAMES - MARGIN) / length(columns);
        let (id, title) = (self.id, escaped(self.title));
        write!(
            page,
            "<figure class=\"chart whole heat\" id=\"{id}\"><figcaption><h3>{title}</h3><p>{}</p></figcaption>",
            escaped(&self.note)
        )?;
        self.write_key(most, page)?;
        write!(
            page,
            "<div class=\"plot\"><svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-labelledby=\"{id}-t {id}-d\">\
             <title id=\"{id}-t\">{title}</title><desc id=\"{id}-d\">{} of {} rows over time; at most {}.</desc>",
            escaped(self.label),
            rows.len(),
            escaped(&self.unit.show(most)),
        )?;
        write_cells(&rows, most, cell, row_height, page)?;
        write_names(&names, row_height, page)?;
        write_times(length(columns) * interval, rows.len() * row_height, page)?;
        page.push_str("</svg></div>");
        self.write_values(&names, &rows, interval, (row_height, cell), page)?;
        page.push_str("</figure>\n");
        Ok(())
    }

    /// Few enough rows and columns, and the length of a column.
    fn reduced(&self) -> (Vec<String>, Vec<Vec<f64>>, f64) {
        let together = self.rows.len().div_ceil(ROWS_MAX).max(1);
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let joined = columns.div_ceil(COLUMNS_MAX).max(1);
        let names = self.names.chunks(together).map(|names| match names {
            [first, .., last] => span(first, last),
            [only] => only.clone(),
            [] => String::new(),
        });
        let rows = self.rows.chunks(together).map(|rows| {
            let columns = (0..columns.div_ceil(joined)).map(|column| {
                let cells = rows.iter().flat_map(|row| row.iter().skip(column * joined).take(joined));
                let (count, sum) = cells.fold((0usize, 0.0), |(count, sum), value| (count + 1, sum + value));
                if count == 0 { 0.0 } else { sum / length(count) }
            });
            columns.collect()
        });
        (names.collect(), rows.collect(), self.interval * length(joined))
    }

    /// What the shades stand for.
    fn write_key(&self, most: f64, page: &mut String) -> std::fmt::Result {
        write!(
            page,
            "<p class=\"key\"><span>0</span><svg width=\"{}\" height=\"12\" aria-hidden=\"true\">",
            SHADES * 22
        )?;
        for shade in 0..SHADES {
            write!(page, "<rect class=\"h{shade}\" x=\"{}\" width=\"22\" height=\"12\"/>", shade * 22)?;
        }
        write!(page, "</svg><span>{} {}</span></p>", escaped(&self.unit.show(most)), escaped(self.label))
    }

    fn write_values(
        &self,
        names: &[String],
        rows: &[Vec<f64>],
        interval: f64,
        (row_height, cell): (usize, f64),
        page: &mut String,
    ) -> std::fmt::Result {
        write!(
            page,
            "<details class=\"values\" data-along=\"both\" data-frame=\"{NAMES} 0 {} {}\" data-cell=\"{cell:.3} {row_height}\">\
             <summary>Values</summary><div class=\"scroll\"><table><thead><tr><th scope=\"col\">from</th>",
            WIDTH - MARGIN,
            rows.len() * row_height,
        )?;
        for (column, _) in rows.first().into_iter().flatten().enumerate() {
            write!(page, "<th>{}</th>", escaped(&number::duration(length(column) * interval)))?;
        }
        page.push_str("</tr></thead><tbody>");
        for (name, row) in names.iter().zip(rows) {
            write!(page, "<tr><th scope=\"row\">{}</th>", escaped(name))?;
            for value in row {
                write!(page, "<td>{}</td>", escaped(&self.unit.show(*value)))?;
            }
            page.push_str("</tr>");
        }
        page.push_str("</tbody></table></div></details>");
        Ok(())
    }
}

/// `server.0..20`, or both names in full where they are of no group.
fn span(first: &str, last: &str) -> String {
    match (first.rsplit_once('.'), last.rsplit_once('.')) {
        (Some((group, _)), Some((other, number))) if group == other => format!("{first}..{number}"),
        _ => format!("{first} to {last}"),
    }
}

/// One path for each shade: cells of the same shade beside each other are one stroke.
fn write_cells(
    rows: &[Vec<f64>],
    most: f64,
    cell: f64,
    row_height: usize,
    page: &mut String,
) -> std::fmt::Result {
    let mut paths: Vec<String> = vec![String::new(); SHADES];
    for (row, y) in rows.iter().zip((0..).step_by(row_height)) {
        let shades: Vec<usize> = row.iter().map(|value| shade(*value, most)).collect();
        let mut column = 0;
        for run in shades.chunk_by(|one, other| one == other) {
            let (from, to) = (length(column) * cell, length(column + run.len()) * cell);
            column += run.len();
            let Some(path) = run.first().and_then(|shade| paths.get_mut(*shade)) else { continue };
            let x = from + length(NAMES);
            write!(path, "M{x:.1} {y}h{:.1}v{}H{x:.1}z", to - from, row_height - 1)?;
        }
    }
    for (shade, path) in paths.iter().enumerate().filter(|(_, path)| !path.is_empty()) {
        write!(page, "<path class=\"h{shade}\" d=\"{path}\"/>")?;
    }
    Ok(())
}

/// The shade of a value; only nothing has none.
fn shade(value: f64, most: f64) -> usize {
    let share = if most > 0.0 { value / most } else { 0.0 };
    let last = SHADES - 1;
    (0..last).find(|shade| share <= length(*shade) / length(last)).unwrap_or(last)
}

/// As many names as there is room for.
fn write_names(names: &[String], row_height: usize, page: &mut String) -> std::fmt::Result {
    let every = 12usize.div_ceil(row_height).max(1);
    page.push_str("<g class=\"axis\">");
    for (index, name) in names.iter().enumerate().step_by(every) {
        let y = index * row_height + row_height / 2 + 4;
        write!(
            page,
            "<text class=\"yt\" x=\"{}\" y=\"{y}\">{}</text>",
            NAMES - 7,
            escaped(&shortened(name, 22))
        )?;
    }
    page.push_str("</g>");
    Ok(())
}

fn write_times(end: f64, base: usize, page: &mut String) -> std::fmt::Result {
    let scale = super::scale::Scale::exact(0.0, end);
    page.push_str("<g class=\"axis\">");
    for tick in scale.ticks() {
        let x = length(NAMES) + scale.place(tick) * length(WIDTH - NAMES - MARGIN);
        let text = escaped(&Unit::Time.show(tick));
        write!(
            page,
            "<path class=\"base\" d=\"M{x:.1} {base}v4\"/><text class=\"xt\" x=\"{x:.1}\" y=\"{}\">{text}</text>",
            base + 18
        )?;
    }
    let middle = (WIDTH + NAMES - MARGIN) / 2;
    write!(page, "<text class=\"xl\" x=\"{middle}\" y=\"{}\">time</text></g>", base + 38)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heat(rows: usize, columns: usize) -> String {
        let heat = Heat {
            id: "h",
            title: "t",
            note: String::new(),
            label: "requests",
            unit: Unit::Count,
            names: (0..rows).map(|row| format!("server.{row}")).collect(),
            rows: (0..rows).map(|row| (0..columns).map(|column| length(row * column)).collect()).collect(),
            interval: 1e6,
        };
        let mut page = String::new();
        heat.write(&mut page).unwrap();
        page
    }

    #[test]
    fn any_number_of_servers_fits() {
        for (rows, columns) in [(1, 1), (3, 256), (1_000, 256), (65_536, 16)] {
            let page = heat(rows, columns);
            assert!(page.len() < 140_000, "{rows} {columns}: {}", page.len());
            assert_eq!(page.matches("scope=\"row\"").count(), rows.div_ceil(rows.div_ceil(ROWS_MAX)));
        }
        assert!(heat(1_000, 10).contains("server.0..20"));
        assert_eq!(heat(0, 0), "");
        assert_eq!(heat(3, 0), "");
    }

    #[test]
    fn only_nothing_has_no_shade() {
        assert_eq!(
            [0.0, 0.001, 0.124, 0.126, 0.5, 0.99, 1.0].map(|value| shade(value, 1.0)),
            [0, 1, 1, 2, 4, 8, 8]
        );
        assert_eq!(shade(0.0, 0.0), 0);
    }
}
