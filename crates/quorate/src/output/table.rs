//! Lists for people: aligned on a terminal, tab-separated for other programs.

use serde::Serialize;
use unicode_width::UnicodeWidthStr as _;

use super::{Output, Style, ago, one_line};

/// A column of a list.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    /// Its head.
    pub(crate) name: &'static str,
    /// Shown only when more was asked for.
    pub(crate) wide: bool,
}

/// One value of a row.
#[derive(Clone, Debug)]
pub(crate) enum Cell {
    /// Text as it is.
    Text(String),
    /// Text that is set off.
    Styled(String, Style),
    /// A moment in RFC 3339: how long ago for people, as it is for programs.
    Time(Option<String>),
    /// Nothing.
    None,
}

impl Cell {
    /// Text.
    pub(crate) fn text(text: impl ToString) -> Self {
        Self::Text(text.to_string())
    }

    /// Text, or nothing.
    pub(crate) fn maybe(text: Option<impl ToString>) -> Self {
        text.map_or(Self::None, Self::text)
    }

    fn people(&self) -> String {
        match self {
            Self::Text(text) | Self::Styled(text, _) => one_line(text),
            Self::Time(Some(time)) => ago(time),
            Self::Time(None) | Self::None => "-".to_owned(),
        }
    }

    fn programs(&self) -> String {
        match self {
            Self::Text(text) | Self::Styled(text, _) => one_line(text),
            Self::Time(Some(time)) => time.clone(),
            Self::Time(None) | Self::None => String::new(),
        }
    }

    const fn style(&self) -> Style {
        match self {
            Self::Styled(_, style) => *style,
            Self::Text(_) | Self::Time(_) => Style::Plain,
            Self::None => Style::Faint,
        }
    }
}

/// Something that is listed.
pub(crate) trait Row: Serialize {
    /// The heads of the columns.
    const COLUMNS: &'static [Column];

    /// What other commands call it.
    fn name(&self) -> String;

    /// One value for each column.
    fn cells(&self) -> Vec<Cell>;
}

fn columns<T: Row>(wide: bool) -> impl Iterator<Item = (usize, &'static Column)> {
    T::COLUMNS
        .iter()
        .enumerate()
        .filter(move |(_, column)| wide || !column.wide)
}

/// Columns under each other.
pub(super) fn aligned<T: Row>(rows: &[T], wide: bool, output: Output) -> String {
    let heads = columns::<T>(wide).map(|(_, column)| (column.name.to_owned(), Style::Faint));
    let mut lines: Vec<Vec<(String, Style)>> = vec![heads.collect()];
    for row in rows {
        let cells = row.cells();
        lines.push(
            columns::<T>(wide)
                .filter_map(|(at, _)| cells.get(at))
                .map(|cell| (cell.people(), cell.style()))
                .collect(),
        );
    }
    let mut widths: Vec<usize> = Vec::new();
    for line in &lines {
        for (at, (text, _)) in line.iter().enumerate() {
            match widths.get_mut(at) {
                Some(width) => *width = (*width).max(text.width()),
                None => widths.push(text.width()),
            }
        }
    }
    let mut all = String::new();
    for line in &lines {
        let last = line.len().saturating_sub(1);
        for (at, ((text, style), width)) in line.iter().zip(&widths).enumerate() {
            all.push_str(&style.paint(text, output.color));
            if at < last {
                all.push_str(&" ".repeat(width - text.width() + 2));
            }
        }
        all.push('\n');
    }
    all
}

/// One line a row, values apart by a tab.
pub(super) fn tabbed<T: Row>(rows: &[T], wide: bool) -> String {
    let heads: Vec<&str> = columns::<T>(wide).map(|(_, column)| column.name).collect();
    let mut all = heads.join("\t") + "\n";
    for row in rows {
        let cells = row.cells();
        let line: Vec<String> = columns::<T>(wide)
            .filter_map(|(at, _)| cells.get(at))
            .map(Cell::programs)
            .collect();
        all.push_str(&line.join("\t"));
        all.push('\n');
    }
    all
}
