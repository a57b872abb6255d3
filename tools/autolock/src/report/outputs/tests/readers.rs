//! Public readers: `go tool pprof` and Python's `hdrhistogram` find what the report says.

use super::*;

#[test]
fn gos_pprof_reads_the_profiles_and_finds_the_same_totals() {
    let go = Command::new("go").arg("version").output();
    if !go.is_ok_and(|output| output.status.success()) {
        return skipped("no go (apt-get install golang-go)");
    }
    let scratch = Scratch::new("pprof");
    for (name, report) in all_kinds() {
        let dir = scratch.0.join(name);
        write_all(&report, &dir).expect("written");
        for (view, kind) in PROFILES {
            let file = dir.join(format!("{}.pb.gz", view.profile()));
            let pprof = |arguments: &[&str]| {
                let mut command = Command::new("go");
                command
                    .args(["tool", "pprof", "-symbolize=none"])
                    .args(arguments)
                    .arg(&file);
                command
                    .env("PPROF_TMPDIR", &scratch.0)
                    .env("HOME", &scratch.0);
                let output = command.output().expect("go runs");
                let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
                assert!(output.status.success(), "{name}, {view:?}: {complaint}");
                String::from_utf8_lossy(&output.stdout).into_owned()
            };
            // Lines of samples: `count delay: locations`.
            let raw = pprof(&["-raw"]);
            let samples = raw
                .split("\nSamples:\n")
                .nth(1)
                .and_then(|rest| rest.split("\nLocations").next());
            let mut sum = (0, 0);
            for line in samples.expect("samples").lines() {
                let values = line
                    .split_once(": ")
                    .map(|(values, _)| values.split_whitespace());
                let values: Vec<Option<u64>> = values
                    .into_iter()
                    .flatten()
                    .map(|v| v.parse().ok())
                    .collect();
                if let [Some(count), Some(time)] = values[..] {
                    sum = (sum.0 + count, sum.1 + time);
                }
            }
            assert_eq!(sum, totals(&report, kind), "{name}, {view:?}:\n{raw}");
            // The table's own total, of the value that it shows by default.
            let top = pprof(&["-top", "-unit=ns", "-nodefraction=0", "-nodecount=0"]);
            let total = top
                .split(" of ")
                .nth(1)
                .and_then(|rest| rest.split("ns total").next());
            let total = total.filter(|total| total.parse::<u64>().is_ok());
            if (name, view) == ("server", View::Wait) {
                // The lock's layers go, their caller is charged.
                assert!(!top.contains("lock_guard"), "{top}");
                let count = top.lines().find(|line| line.contains("Stats::count("));
                assert!(
                    count.is_some_and(|line| !line.trim_start().starts_with("0 ")),
                    "{top}"
                );
            }
            assert_eq!(
                total.unwrap_or("0"),
                sum.1.to_string(),
                "{name}, {view:?}:\n{top}"
            );
        }
    }
}

/// A Python that has the reader of histograms, in a folder beside the test program.
fn python() -> Result<PathBuf, String> {
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    let folder = program
        .ancestors()
        .nth(2)
        .ok_or("no target folder")?
        .join("python-readers");
    let python = folder.join("bin/python");
    let run = |command: &mut Command| match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr)
            .trim()
            .replace('\n', "; ")),
        Err(error) => Err(error.to_string()),
    };
    let mut import = Command::new(&python);
    if run(import.args(["-c", "import hdrh"])).is_err() {
        let mut make = Command::new("python3");
        run(make.args(["-m", "venv"]).arg(&folder))
            .map_err(|e| format!("no Python environment (apt-get install python3-venv): {e}"))?;
        let mut install = Command::new(&python);
        run(install.args(["-m", "pip", "install", "--quiet", "hdrhistogram"]))
            .map_err(|e| format!("pip cannot install hdrhistogram: {e}"))?;
    }
    Ok(python)
}

#[test]
fn pythons_hdrhistogram_reads_the_logs_and_finds_the_same_distributions() {
    let python = match python() {
        Ok(python) => python,
        Err(reason) => return skipped(&reason),
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/readers/hlog.py");
    let scratch = Scratch::new("hlog");
    for (name, report) in all_kinds() {
        let dir = scratch.0.join(name);
        write_all(&report, &dir).expect("written");
        for measure in Measure::ALL {
            let file = dir.join(format!("{}.hlog", measure.name()));
            let output = Command::new(&python)
                .arg(&script)
                .arg(&file)
                .output()
                .expect("python runs");
            let text = String::from_utf8(output.stdout).expect("UTF-8");
            assert!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
            let mut read: BTreeMap<String, serde_json::Value> = BTreeMap::new();
            for line in text.lines() {
                let value: serde_json::Value = serde_json::from_str(line).expect("JSON");
                let tag = value["tag"].as_str().unwrap_or_default().to_owned();
                assert!(read.insert(tag, value).is_none(), "{name}: twice: {line}");
            }
            let all = &read[""];
            let kind = match measure {
                Measure::Wait => SiteKind::Wait,
                Measure::Hold => SiteKind::Hold,
            };
            let rows = hottest(&report);
            assert_eq!(all["count"], totals(&report, kind).0, "{name}");
            assert_eq!(
                all["length_ms"].as_f64().map(|ms| ms.round() as u64),
                Some(report.process.duration_ns / 1_000_000)
            );
            assert_eq!(
                all["start_ms"].as_f64().map(|ms| ms.round() as i64),
                Some((report.process.started_ns as f64 / 1e6).round() as i64)
            );
            let mut known = 1;
            for (row, tag) in rows.iter().zip(hlog::tags(&rows)) {
                let distribution = measure.of(row);
                let Some(found) = read.get(&format!("{}:{tag}", measure.name())) else {
                    assert_eq!(distribution.count, 0, "{name}: {tag} is missing");
                    continue;
                };
                known += 1;
                let histogram = &distribution.histogram;
                assert_eq!(found["count"], distribution.count, "{name}: {tag}");
                assert_eq!(found["digits"], 2);
                let recorded: Vec<(u64, u64)> = histogram
                    .iter_recorded()
                    .map(|v| (v.value_iterated_to(), v.count_at_value()))
                    .collect();
                assert_eq!(
                    found["recorded"],
                    serde_json::json!(recorded),
                    "{name}: {tag}"
                );
            }
            assert_eq!(read.len(), known, "{name}: tags of no lock");
        }
    }
}
