//! A drawing backend for plotters that writes SVG whose looks come from style sheets:
//! what plotters takes for a colour is an index into `Inks`, and an ink is a class. Text
//! is escaped by maud.
//!
//! Coordinates are in tenths of a pixel, because plotters' are integers.

use maud::{Markup, html};
use plotters::style::RGBColor;
use plotters_backend::text_anchor::{HPos, VPos};
use plotters_backend::{
    BackendColor, BackendCoord, BackendStyle, BackendTextStyle, DrawingBackend, DrawingErrorKind,
    FontTransform,
};
use std::convert::Infallible;

/// Of a pixel.
pub const TENTHS: u32 = 10;

/// Classes, and what an element says when it is pointed at.
#[derive(Default)]
pub struct Inks(Vec<(String, Option<String>)>);

impl Inks {
    pub fn add(&mut self, class: impl Into<String>, tip: Option<String>) -> RGBColor {
        let [_, a, b, c] = (self.0.len() as u32).to_be_bytes();
        self.0.push((class.into(), tip));
        RGBColor(a, b, c)
    }

    fn get(&self, color: BackendColor) -> (&str, Option<&str>) {
        let (a, b, c) = color.rgb;
        let index = u32::from_be_bytes([0, a, b, c]) as usize;
        self.0
            .get(index)
            .map_or(("", None), |(class, tip)| (class, tip.as_deref()))
    }
}

/// An element as plotters asked for it, before its ink is known to be complete.
enum Shape {
    Path(Vec<BackendCoord>),
    Polygon(Vec<BackendCoord>),
    Circle(BackendCoord, u32),
    Text {
        text: String,
        at: BackendCoord,
        anchor: &'static str,
        /// Of the font size, below `at`.
        drop: f64,
        size: f64,
        turned: bool,
    },
}

/// Everything that was drawn.
#[derive(Default)]
pub struct Drawing(Vec<(BackendColor, Shape)>);

/// What plotters draws on.
pub struct Backend<'a> {
    pub size: (u32, u32),
    pub drawing: &'a mut Drawing,
}

impl Backend<'_> {
    fn push(&mut self, color: BackendColor, shape: Shape) -> Done {
        if color.alpha > 0.0 {
            self.drawing.0.push((color, shape));
        }
        Ok(())
    }
}

type Done = Result<(), DrawingErrorKind<Infallible>>;

impl DrawingBackend for Backend<'_> {
    type ErrorType = Infallible;

    fn get_size(&self) -> (u32, u32) {
        self.size
    }

    fn ensure_prepared(&mut self) -> Done {
        Ok(())
    }

    fn present(&mut self) -> Done {
        Ok(())
    }

    fn draw_pixel(&mut self, at: BackendCoord, color: BackendColor) -> Done {
        self.push(color, Shape::Circle(at, TENTHS / 2))
    }

    fn draw_line<S: BackendStyle>(
        &mut self,
        from: BackendCoord,
        to: BackendCoord,
        style: &S,
    ) -> Done {
        self.push(style.color(), Shape::Path(vec![from, to]))
    }

    fn draw_path<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(
        &mut self,
        path: I,
        style: &S,
    ) -> Done {
        self.push(style.color(), Shape::Path(path.into_iter().collect()))
    }

    fn draw_rect<S: BackendStyle>(
        &mut self,
        (left, top): BackendCoord,
        (right, bottom): BackendCoord,
        style: &S,
        _fill: bool,
    ) -> Done {
        let corners = vec![(left, top), (right, top), (right, bottom), (left, bottom)];
        self.push(style.color(), Shape::Polygon(corners))
    }

    fn draw_circle<S: BackendStyle>(
        &mut self,
        center: BackendCoord,
        radius: u32,
        style: &S,
        _fill: bool,
    ) -> Done {
        self.push(style.color(), Shape::Circle(center, radius))
    }

    fn fill_polygon<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(
        &mut self,
        corners: I,
        style: &S,
    ) -> Done {
        self.push(style.color(), Shape::Polygon(corners.into_iter().collect()))
    }

    fn draw_text<S: BackendTextStyle>(&mut self, text: &str, style: &S, at: BackendCoord) -> Done {
        let pos = style.anchor();
        let shape = Shape::Text {
            text: text.into(),
            at,
            anchor: match pos.h_pos {
                HPos::Left => "start",
                HPos::Center => "middle",
                HPos::Right => "end",
            },
            drop: match pos.v_pos {
                VPos::Top => 0.8,
                VPos::Center => 0.33,
                VPos::Bottom => -0.2,
            },
            size: style.size(),
            turned: !matches!(style.transform(), FontTransform::None),
        };
        self.push(style.color(), shape)
    }
}

impl Drawing {
    /// The elements, one a line.
    pub fn render(&self, inks: &Inks) -> Markup {
        html! {
            @for (color, shape) in &self.0 {
                @let (class, tip) = inks.get(*color);
                (element(class, tip, shape)) "\n"
            }
        }
    }
}

fn element(class: &str, tip: Option<&str>, shape: &Shape) -> Markup {
    let title = html! { @if let Some(tip) = tip { title { (tip) } } };
    match shape {
        Shape::Path(points) => {
            html! { polyline class=(class) points=(coordinates(points)) { (title) } }
        }
        Shape::Polygon(points) => {
            html! { polygon class=(class) points=(coordinates(points)) { (title) } }
        }
        Shape::Circle((x, y), radius) => html! {
            circle class=(class) cx=(pixels(*x)) cy=(pixels(*y)) r=(pixels(*radius as i32)) { (title) }
        },
        Shape::Text {
            text,
            at: (x, y),
            anchor,
            drop,
            size,
            turned,
        } => {
            // Turned text runs upwards; below it is to its right.
            let shift = (drop * size) as i32;
            let (x, y) = if *turned {
                (x + shift, *y)
            } else {
                (*x, y + shift)
            };
            let (x, y) = (pixels(x), pixels(y));
            let turn = turned.then(|| format!("rotate(-90 {x} {y})"));
            html! {
                text class=(class) x=(x) y=(y) text-anchor=(anchor)
                    font-size=(pixels(*size as i32)) transform=[turn] { (text) (title) }
            }
        }
    }
}

/// `12.3`, and `12` for 12.0.
fn pixels(tenths: i32) -> String {
    let sign = if tenths < 0 { "-" } else { "" };
    let (whole, rest) = (
        tenths.unsigned_abs() / TENTHS,
        tenths.unsigned_abs() % TENTHS,
    );
    match rest {
        0 => format!("{sign}{whole}"),
        rest => format!("{sign}{whole}.{rest}"),
    }
}

fn coordinates(points: &[BackendCoord]) -> String {
    let pairs: Vec<String> = points
        .iter()
        .map(|&(x, y)| format!("{},{}", pixels(x), pixels(y)))
        .collect();
    pairs.join(" ")
}
