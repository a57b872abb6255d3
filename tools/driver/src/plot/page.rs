//! The page: one file that loads nothing. Facts at the top, one legend for all figures at
//! the side, the figures group by group, the table, and the table as text.

use super::chart::{self, Style};
use super::figure::Figure;
use super::look::{self, LOOKS, Looks};
use super::sheet::Sheet;
use crate::run::Run;
use anyhow::Result;
use maud::{DOCTYPE, Markup, PreEscaped, html};

/// More groups than this begin closed.
const OPEN_GROUPS: usize = 4;

pub struct Page<'a> {
    pub title: String,
    /// Below the title: machine, versions, warnings.
    pub head: Markup,
    pub style: Style<'a>,
    /// Each with its heading.
    pub groups: Vec<(String, Vec<Figure>)>,
    pub sheet: Sheet,
    /// What the columns mean.
    pub sheet_note: String,
    /// Text below the sheet's.
    pub more_text: String,
}

impl Page<'_> {
    pub fn render(&self) -> Result<String> {
        let open = self.groups.len() <= OPEN_GROUPS;
        let mut groups = Vec::new();
        for (title, figures) in &self.groups {
            let drawn = figures
                .iter()
                .map(|figure| chart::inline(figure, &self.style));
            groups.push((title, drawn.collect::<Result<Vec<Markup>>>()?));
        }
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta http-equiv="Content-Security-Policy" content=(figures::POLICY);
                    title { (self.title) }
                    style { (PreEscaped(look::CSS)) (PreEscaped(figures::PAGE)) (PreEscaped(include_str!("page.css"))) }
                    style id="looks" { (PreEscaped(self.style.looks.css())) }
                }
                body data-looks=(LOOKS) {
                    svg width="0" height="0" style="position:absolute" aria-hidden="true" {
                        defs { (look::marks()) }
                    }
                    header { h1 { (self.title) } (self.head) }
                    div class="layout" {
                        aside aria-label="Locks" { (self.legend()) }
                        main {
                            @for (i, (title, figures)) in groups.iter().enumerate() {
                                details class="group" open[open || i == 0] {
                                    summary { h2 { (title) } }
                                    div class="figures" {
                                        @for figure in figures { figure { (figure) } "\n" }
                                    }
                                }
                            }
                            section class="group" {
                                h2 { "All figures" }
                                p { (self.sheet_note) }
                                input id="search" type="search" placeholder="only rows with these words"
                                    aria-label="Only rows with these words";
                                (self.sheet.html())
                            }
                            details class="group" {
                                summary { h2 { "As text" } }
                                pre { (self.sheet.text()) "\n" (self.more_text) }
                            }
                        }
                    }
                    div id="tip" role="status" hidden {}
                    script { (PreEscaped(include_str!("page.js"))) (PreEscaped(figures::SHEET)) }
                }
            }
        };
        Ok(page.into_string())
    }

    fn legend(&self) -> Markup {
        let Style {
            locks,
            looks,
            sides,
        } = &self.style;
        let grey = looks.grey().len();
        html! {
            @if let Some([solid, dashed]) = sides {
                div class="lock" { (sample("s key")) (solid) }
                div class="lock" { (sample("s x key")) (dashed) }
            }
            div class="tools" {
                @for (tool, text, title) in tools(grey > 0, self.groups.len() > OPEN_GROUPS) {
                    button type="button" data-tool=(tool) title=(title) { (text) }
                }
            }
            p class="hint" { (locks.len()) " locks. Click: colour or grey. Point: stand out." }
            @for (family, members) in look::families(locks) {
                fieldset {
                    @if members.len() < locks.len() {
                        button type="button" class="family" title="all of them in colour, or none" {
                            (family) " (" (members.len()) ")"
                        }
                    }
                    @for lock in members {
                        button type="button" class="lock" data-lock=(lock) data-look=[looks.0[lock]]
                            aria-pressed=(looks.0[lock].is_some().to_string()) {
                            (sample(&format!("s m L{lock}"))) (locks[lock])
                        }
                    }
                }
            }
        }
    }
}

fn tools(grey: bool, many: bool) -> Vec<(&'static str, &'static str, &'static str)> {
    let mut tools = vec![(
        "all",
        "all",
        "all locks in colour; from the 11th on colours repeat",
    )];
    tools.push(("none", "none", "all locks in grey"));
    tools.push(("first", "reset", "the colours that the page began with"));
    if grey {
        tools.push((
            "rest",
            "hide grey",
            "hide the locks in grey, here and in the table",
        ));
    }
    if many {
        tools.push(("open", "open all", "open or close all groups"));
    }
    tools
}

fn sample(class: &str) -> Markup {
    html! {
        svg viewBox="0 0 28 12" aria-hidden="true" { polyline class=(class) points="2,6 14,6 26,6" {} }
    }
}

/// Where and how a run was made.
pub fn facts(run: &Run) -> Vec<(&'static str, String)> {
    let (m, s) = (&run.machine, &run.settings);
    let unknown = || "not recorded".to_owned();
    let mut environment: Vec<String> = Vec::new();
    environment.extend(
        m.environment
            .iter()
            .map(|(name, value)| format!("{name}={value}")),
    );
    let mut facts = vec![
        ("date", run.date.clone()),
        (
            "machine",
            format!("{}, {} cores, TSC {:.2} GHz", m.cpu, m.cores, m.tsc_ghz),
        ),
        ("kernel", format!("Linux {}", m.kernel)),
        ("glibc", m.glibc.clone()),
        ("compiler", m.rustc.clone().unwrap_or_else(unknown)),
        ("revision", m.commit.clone().unwrap_or_else(unknown)),
        ("on-CPU source", on_cpu_source(run)),
        ("load at start", m.load_average.clone()),
        (
            "settings",
            format!(
                "baseline {}, {} rounds of {} s, warm-up {} s, interleaved, {}, {}",
                s.baseline,
                s.rounds,
                s.duration_s,
                s.warm_up_s,
                if s.single_threaded {
                    "single-threaded process"
                } else {
                    "multi-threaded process"
                },
                if s.latency {
                    "latencies recorded"
                } else {
                    "latencies not recorded"
                },
            ),
        ),
        ("command line", run.command.join(" ")),
    ];
    if !environment.is_empty() {
        facts.push(("environment", environment.join(" ")));
    }
    facts
}

/// What the run says about how locks know whether a holder runs.
fn on_cpu_source(run: &Run) -> String {
    let asked = run.machine.environment.get("AUTOLOCK_BACKEND");
    match (&run.machine.on_cpu, asked) {
        (Some(source), _) => source.clone(),
        (None, Some(backend)) => format!("{backend} (AUTOLOCK_BACKEND)"),
        (None, None) => "the library's default (auto)".into(),
    }
}

/// One line for the figures' files.
pub fn source(run: &Run, name: &str) -> String {
    let m = &run.machine;
    format!(
        "{name}: {}, {} cores, Linux {}, glibc {}, {}",
        m.cpu, m.cores, m.kernel, m.glibc, run.date
    )
}

pub fn facts_list(run: &Run) -> Markup {
    html! {
        dl class="facts" {
            @for (name, value) in facts(run) {
                dt { (name) }
                dd { @if name == "command line" { code { (value) } } @else { (value) } }
            }
        }
    }
}

/// What the figures show, in a sentence or two.
pub fn reading(looks: &Looks) -> Markup {
    html! {
        p {
            "Lines join medians over the rounds; bands and whiskers reach from the least round to the greatest."
            @if !looks.grey().is_empty() {
                " In colour: the baseline, autolock and the fastest by geometric mean, or those asked for;"
                " the legend changes that."
            }
        }
    }
}
