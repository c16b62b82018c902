//! How answers are printed: data to stdout in the form that -o names, messages to stderr.

use std::io::Write;

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;

use super::{
    args::Form,
    failure::{Failure, Outcome},
    shape::visible,
};

/// One answer in every form it may be asked for.
#[derive(Debug, Default)]
pub struct Answer {
    /// The stable JSON.
    pub json: Value,
    /// The list in `json` whose items are the lines of `-o jsonl`.
    pub list: Option<&'static str>,
    /// The YAML, where it is not simply the JSON.
    pub yaml: Option<String>,
    pub header: Vec<&'static str>,
    pub rows: Vec<Vec<String>>,
    /// How many of the columns belong to `-o wide` alone: the last ones.
    pub wide_columns: usize,
    /// For `-o table` in place of a table.
    pub text: Option<String>,
    pub names: Vec<String>,
    /// For people, on stderr, with tables alone.
    pub notes: Vec<String>,
}

impl Answer {
    pub fn print(&self, form: Form) -> Outcome {
        let text = match form {
            Form::Table | Form::Wide => self.human(form),
            Form::Json => pretty(&self.json),
            Form::Jsonl => self.lines(),
            Form::Csv => self.csv()?,
            Form::Yaml => match &self.yaml {
                Some(yaml) => yaml.clone(),
                None => serde_saphyr::to_string(&self.json).map_err(Failure::internal)?,
            },
            Form::Nagios => return Err(Failure::usage("--output nagios is for `doctor` and `cluster health`")),
            Form::Name => self.names.iter().map(|name| format!("{}\n", visible(name))).collect(),
        };
        stdout(&text)?;
        if matches!(form, Form::Table | Form::Wide) {
            for note in &self.notes {
                eprintln!("{}", visible(note));
            }
        }
        Ok(())
    }

    fn human(&self, form: Form) -> String {
        if let Some(text) = &self.text {
            return text.clone();
        }
        if self.header.is_empty() {
            return String::new();
        }
        let columns = match form {
            Form::Wide => self.header.len(),
            _ => self.header.len() - self.wide_columns,
        };
        table(&self.header[..columns], self.rows.iter().map(|row| &row[..columns]))
    }

    /// RFC 4180.
    fn csv(&self) -> Outcome<String> {
        if self.header.is_empty() {
            return Err(Failure::usage("--output csv is for lists"));
        }
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let quoted = cells.map(|cell| match cell.contains(['"', ',', '\n', '\r']) {
                true => format!("\"{}\"", cell.replace('"', "\"\"")),
                false => cell.to_owned(),
            });
            quoted.collect::<Vec<_>>().join(",") + "\r\n"
        };
        let header = line(&mut self.header.iter().copied());
        let rows = self.rows.iter().map(|row| {
            let shown: Vec<String> = row.iter().map(|it| visible(it)).collect();
            line(&mut shown.iter().map(String::as_str))
        });
        Ok(header + &rows.collect::<String>())
    }

    fn lines(&self) -> String {
        let items = self.list.and_then(|list| self.json.get(list)).and_then(Value::as_array);
        match items {
            Some(items) => items.iter().map(|item| format!("{item}\n")).collect(),
            None => format!("{}\n", self.json),
        }
    }
}

/// Data for programs and people; a reader that has gone away (`| head`) is not an error.
pub fn stdout(text: &str) -> Outcome {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::internal(error)),
        _ => Ok(()),
    }
}

pub fn pretty(json: &Value) -> String {
    format!("{json:#}\n")
}

/// Columns two spaces apart, without rules or colours.
pub fn table<'a>(header: &[&str], rows: impl Iterator<Item = &'a [String]>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().map(|word| word.to_uppercase()));
    for row in rows {
        table.add_row(row.iter().map(|it| visible(it)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}
