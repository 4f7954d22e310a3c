//! What was measured, and how it is shown: as JSON, as tables, and as charts.

use crate::calls;
use crate::charts::{Bar, bars, lines};
use crate::measure::{median, spread};
use crate::rivals::{ALL, Keeps, OWN};
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

/// What numbers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unit {
    Nanoseconds,
    PerSecond,
    Bytes,
    Ratio,
    Seconds,
    Count,
}

impl Unit {
    pub fn show(self, value: f64) -> String {
        let digits = |value: f64| match value {
            small if small < 9.95 => format!("{small:.2}"),
            middling if middling < 99.5 => format!("{middling:.1}"),
            large => format!("{large:.0}"),
        };
        let scaled = |steps: &[(f64, &str)]| {
            let step = steps.iter().rfind(|step| value.abs() >= step.0).unwrap_or(&steps[0]);
            format!("{} {}", digits(value / step.0), step.1)
        };
        match self {
            _ if value.is_nan() => "-".to_string(),
            // The clock has not ticked.
            Unit::Nanoseconds if value < 1.0 => "< 10 ns".to_string(),
            Unit::Nanoseconds => scaled(&[(1.0, "ns"), (1e3, "us"), (1e6, "ms"), (1e9, "s")]),
            Unit::Seconds => scaled(&[(1e-3, "ms"), (1.0, "s")]),
            Unit::PerSecond => scaled(&[(1e3, "k/s"), (1e6, "M/s")]),
            Unit::Bytes => scaled(&[(1024.0, "KiB"), (1048576.0, "MiB"), (1073741824.0, "GiB")]),
            Unit::Ratio => format!("{value:.2}"),
            Unit::Count => format!("{value:.0}"),
        }
    }
}

/// One table: rows, mostly rivals, by columns, mostly measures.
#[derive(Debug, Serialize, Deserialize)]
pub struct Table {
    name: String,
    title: String,
    columns: Vec<(String, Unit)>,
    /// Of each row and column what each round gave.
    rows: Vec<(String, BTreeMap<String, Vec<f64>>)>,
}

impl Table {
    pub fn new(name: &str, title: impl Into<String>) -> Table {
        Table { name: name.into(), title: title.into(), columns: Vec::new(), rows: Vec::new() }
    }

    pub fn add(&mut self, row: &str, column: &str, unit: Unit, value: f64) {
        if !self.columns.iter().any(|(name, _)| name == column) {
            self.columns.push((column.to_string(), unit));
        }
        let at = self.rows.iter().position(|(name, _)| name == row).unwrap_or_else(|| {
            self.rows.push((row.to_string(), BTreeMap::new()));
            self.rows.len() - 1
        });
        self.rows[at].1.entry(column.to_string()).or_default().push(value);
    }

    pub fn get(&self, row: &str, column: &str) -> Option<f64> {
        let (_, cells) = self.rows.iter().find(|(name, _)| name == row)?;
        cells.get(column).map(|rounds| median(rounds))
    }

    fn markdown(&self) -> String {
        let mut text = format!("**{}**\n\n| |", self.title);
        for (column, _) in &self.columns {
            let _ = write!(text, " {column} |");
        }
        let _ = write!(text, "\n| --- |{}\n", " ---: |".repeat(self.columns.len()));
        for (row, cells) in &self.rows {
            let name = if row == OWN { format!("**{row}**") } else { row.clone() };
            let _ = write!(text, "| {name} |");
            for (column, unit) in &self.columns {
                let cell = cells.get(column).map(|rounds| (median(rounds), spread(rounds), rounds));
                let shown = match cell {
                    None => "-".to_string(),
                    Some((value, spread, rounds))
                        if rounds.len() > 1 && spread > 0.1 && spread.is_finite() =>
                    {
                        format!("{} ±{:.0}%", unit.show(value), spread * 50.0)
                    }
                    Some((value, ..)) => unit.show(value),
                };
                let _ = write!(text, " {shown} |");
            }
            text.push('\n');
        }
        text
    }
}

/// A chart: of which column of which table.
struct Chart {
    file: &'static str,
    title: &'static str,
    table: &'static str,
    column: &'static str,
    /// Whether only what outlives the process is in it.
    on_disk: bool,
}

const CHARTS: &[Chart] = &[
    Chart {
        file: "hot.svg",
        title: "A hit: 64-byte value, a thousand hot keys (log scale, shorter is better)",
        table: "reads-64",
        column: "hot hit",
        on_disk: false,
    },
    Chart {
        file: "uniform.svg",
        title: "A hit: 64-byte value, any of all entries (log scale, shorter is better)",
        table: "reads-64",
        column: "uniform hit",
        on_disk: false,
    },
    Chart {
        file: "append.svg",
        title: "A new entry of 64 bytes, by itself (log scale, shorter is better)",
        table: "writes-64",
        column: "append",
        on_disk: true,
    },
    Chart {
        file: "batch.svg",
        title: "A new entry of 64 bytes, by the thousand (log scale, shorter is better)",
        table: "writes-64",
        column: "append by 1000",
        on_disk: true,
    },
    Chart {
        file: "call.svg",
        title: "A cached call f(u64) -> small struct (log scale, shorter is better)",
        table: "calls",
        column: "f(u64) -> struct",
        on_disk: false,
    },
];

/// Charts of cost as work grows: of which rows.
const SCALE_CHARTS: [(&str, &str); 4] = [
    ("scale-hit.svg", "uniform hit"),
    ("scale-append.svg", "append"),
    ("scale-batch.svg", "append by 1000"),
    ("scale-open.svg", "open"),
];

#[derive(Debug, Serialize, Deserialize)]
pub struct Results {
    quick: bool,
    place: String,
    machine: String,
    tables: Vec<Table>,
    /// What could not be measured.
    left_out: RefCell<Vec<String>>,
}

/// The versions that are measured, as they are in the lock file.
fn versions() -> String {
    const NAMES: [&str; 10] = [
        "cacache",
        "cached",
        "fjall",
        "heed",
        "moka",
        "papaya",
        "quick_cache",
        "redb",
        "simd-r-drive",
        "sled",
    ];
    let lock = include_str!("../Cargo.lock");
    let packages = lock.split("[[package]]").filter_map(|package| {
        let field = |name: &str| package.split_once(&format!("\n{name} = \""))?.1.split_once('"');
        Some((field("name")?.0, field("version")?.0))
    });
    // Where there are two the rivals' dependencies have the older one.
    let measured: BTreeMap<_, _> = packages.filter(|(name, _)| NAMES.contains(name)).collect();
    measured
        .iter()
        .map(|(name, version)| format!("{name} {version}"))
        .collect::<Vec<_>>()
        .join(", ")
}

impl Results {
    pub fn begin(quick: bool, place: &Path) -> Results {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.split_once(':').map(|(_, value)| value.trim().to_string()).unwrap_or_default()
        };
        let kibibytes = field(&read("/proc/meminfo"), "MemTotal");
        let memory = kibibytes.trim_end_matches(" kB").parse().unwrap_or(0.0) / 1048576.0;
        let release = read("/proc/sys/kernel/osrelease");
        let compiler = Command::new("rustc").arg("--version").output();
        let compiler = compiler.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        let machine = format!(
            "{} ({} cores to use), {memory:.0} GiB, Linux {}, {}",
            field(&read("/proc/cpuinfo"), "model name"),
            std::thread::available_parallelism().map_or(1, usize::from),
            release.splitn(3, '.').take(2).collect::<Vec<_>>().join("."),
            compiler.unwrap_or_default().split(" (").next().unwrap_or_default(),
        );
        let (place, tables) = (place.display().to_string(), Vec::new());
        Results { quick, place, machine, tables, left_out: RefCell::default() }
    }

    pub fn leave_out(&self, what: &str) {
        self.left_out.borrow_mut().push(what.to_string());
    }

    /// Adds a table, in the place of one of the same name.
    pub fn add(&mut self, table: Table) {
        match self.tables.iter_mut().find(|it| it.name == table.name) {
            Some(old) => *old = table,
            None => self.tables.push(table),
        }
    }

    /// What an earlier run has written, if there is any: a run of some parts measures those anew.
    pub fn read(out: &Path) -> Option<Results> {
        serde_json::from_slice(&std::fs::read(out.join("results.json")).ok()?).ok()
    }

    /// The median of a row and column of a table.
    pub fn get(&self, table: &str, row: &str, column: &str) -> Option<f64> {
        self.tables.iter().find(|it| it.name == table)?.get(row, column)
    }

    pub fn tables(&self) -> String {
        let mut text = format!("{}; stores in {}.\n\n", self.machine, self.place);
        for table in &self.tables {
            let _ = writeln!(text, "{}", table.markdown());
        }
        for what in self.left_out.borrow().iter() {
            let _ = writeln!(text, "{what}\n");
        }
        let mut list = |title: &str, items: &[(&str, &str)]| {
            let _ = writeln!(text, "{title}:\n");
            for (name, mode) in items {
                let _ = writeln!(text, "- {name}: {mode}");
            }
            text.push('\n');
        };
        let stores: Vec<_> = ALL.iter().map(|facts| (facts.name, facts.mode)).collect();
        list("How each store is used", &stores);
        list("How each keeps a function's results", calls::MODES);
        let _ = writeln!(text, "Versions: {}.", versions());
        text
    }

    /// The JSON, the tables, and the charts for which there are numbers.
    pub fn write(&self, out: &Path) -> Result<()> {
        std::fs::create_dir_all(out)?;
        std::fs::write(out.join("results.json"), serde_json::to_string_pretty(self)?)?;
        std::fs::write(out.join("tables.md"), self.tables())?;
        for chart in CHARTS {
            let Some(table) = self.tables.iter().find(|table| table.name == chart.table) else {
                continue;
            };
            let is_shown = |name: &str| {
                let facts = ALL.iter().find(|facts| facts.name == name);
                !chart.on_disk || facts.is_none_or(|facts| facts.keeps == Keeps::OnDisk)
            };
            let bar = |name: &str| {
                let is_lasting =
                    ALL.iter().find(|f| f.name == name).is_none_or(|f| f.keeps == Keeps::OnDisk);
                let value = table.get(name, chart.column)?;
                let label = Unit::Nanoseconds.show(value);
                Some(Bar { name: name.to_string(), value, label, is_own: name == OWN, is_lasting })
            };
            let names = table.rows.iter().map(|(name, _)| &**name);
            let shown: Vec<Bar> = names.filter(|name| is_shown(name)).filter_map(bar).collect();
            std::fs::write(out.join(chart.file), bars(chart.title, shown)?)?;
        }
        if let Some(scale) = self.tables.iter().find(|table| table.name == "scale") {
            for (file, what) in SCALE_CHARTS {
                let of = |(row, _): &(String, _)| {
                    let (rival, measure) = row.split_once(": ")?;
                    let point = |(column, _): &(String, Unit)| {
                        Some((column.parse().ok()?, scale.get(row, column)?))
                    };
                    let points = scale.columns.iter().filter_map(point).collect();
                    (measure == what).then(|| (rival.to_string(), points))
                };
                let series = scale.rows.iter().filter_map(of).collect();
                let title = format!("{what}: nanoseconds by number of entries");
                std::fs::write(out.join(file), lines(&title, series)?)?;
            }
        }
        Ok(())
    }
}
