//! Charts, as SVG that reads on white and on black.

use anyhow::{Result, anyhow};
use plotters::prelude::*;

/// One bar of a chart.
pub struct Bar {
    pub name: String,
    pub value: f64,
    pub label: String,
    pub is_own: bool,
    /// Whether what it stands for outlives its process.
    pub is_lasting: bool,
}

const OWN: RGBColor = RGBColor(214, 90, 30);
const LASTING: RGBColor = RGBColor(70, 110, 170);
const FLEETING: RGBColor = RGBColor(150, 160, 170);

const WIDTH: u32 = 760;
const ROW: u32 = 26;
const LEFT: i32 = 160;
const RIGHT: i32 = 90;

fn style(size: u32, color: &RGBColor) -> TextStyle<'_> {
    ("sans-serif", size).into_font().color(color)
}

/// Horizontal bars on a logarithmic scale, the shortest first.
pub fn bars(title: &str, mut bars: Vec<Bar>) -> Result<String> {
    bars.sort_by(|a, b| a.value.total_cmp(&b.value));
    let height = ROW * bars.len() as u32 + 64;
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        let draw = || -> Result<(), DrawingAreaErrorKind<std::io::Error>> {
            root.fill(&WHITE)?;
            root.draw_text(title, &style(15, &BLACK), (12, 10))?;
            let values = bars.iter().map(|bar| bar.value.max(1e-3).log10());
            let low = values.clone().fold(f64::MAX, f64::min).floor() - 0.3;
            let high = values.fold(f64::MIN, f64::max);
            let room = f64::from(WIDTH as i32 - LEFT - RIGHT);
            for (row, bar) in bars.iter().enumerate() {
                let top = 38 + (row as u32 * ROW) as i32;
                let part = (bar.value.max(1e-3).log10() - low) / (high - low).max(0.1);
                let end = LEFT + (room * part) as i32;
                let color = match (bar.is_own, bar.is_lasting) {
                    (true, _) => OWN,
                    (false, true) => LASTING,
                    (false, false) => FLEETING,
                };
                let corners = [(LEFT, top), (end, top + ROW as i32 - 7)];
                root.draw(&Rectangle::new(corners, color.filled()))?;
                root.draw_text(&bar.name, &style(13, &BLACK), (12, top + 3))?;
                root.draw_text(&bar.label, &style(13, &BLACK), (end + 6, top + 3))?;
            }
            let note = "blue: on disk, outlives the process; grey: in memory";
            root.draw_text(note, &style(11, &FLEETING), (LEFT, height as i32 - 20))?;
            root.present()
        };
        draw().map_err(|error| anyhow!("{error}"))?;
    }
    Ok(svg)
}

/// Lines on logarithmic scales.
pub fn lines(title: &str, series: Vec<(String, Vec<(f64, f64)>)>) -> Result<String> {
    const COLORS: [RGBColor; 3] = [OWN, LASTING, FLEETING];
    let shown = |value: &f64| match *value {
        few if few < 999.5 => format!("{few:.0}"),
        many if many < 999_500.0 => format!("{:.0} k", many / 1e3),
        millions => format!("{:.0} M", millions / 1e6),
    };
    let points = || series.iter().flat_map(|(_, points)| points.iter().copied());
    let span = |of: fn((f64, f64)) -> f64| {
        let low = points().map(of).fold(f64::MAX, f64::min);
        let high = points().map(of).fold(f64::MIN, f64::max);
        low / 1.6..high * 1.6
    };
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH, 300)).into_drawing_area();
        let draw = || -> Result<(), DrawingAreaErrorKind<std::io::Error>> {
            root.fill(&WHITE)?;
            let mut chart = ChartBuilder::on(&root)
                .caption(title, style(15, &BLACK))
                .margin(12)
                .x_label_area_size(28)
                .y_label_area_size(56)
                .build_cartesian_2d(span(|p| p.0).log_scale(), span(|p| p.1).log_scale())?;
            chart
                .configure_mesh()
                .disable_mesh()
                .x_labels(6)
                .y_labels(6)
                .x_label_formatter(&shown)
                .y_label_formatter(&shown)
                .draw()?;
            for ((name, points), color) in series.iter().zip(COLORS.iter().cycle()) {
                let line = LineSeries::new(points.iter().copied(), color.stroke_width(2));
                let key = *color;
                chart
                    .draw_series(line)?
                    .label(name)
                    .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], key));
            }
            let labels = &mut chart.configure_series_labels();
            labels
                .background_style(WHITE.mix(0.8))
                .position(SeriesLabelPosition::LowerRight)
                .draw()?;
            root.present()
        };
        draw().map_err(|error| anyhow!("{error}"))?;
    }
    Ok(svg)
}
