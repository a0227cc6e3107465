//! `rtx list`: the containers of one state directory, as a table, as JSON or by id alone.

use super::Context;
use super::args::{Format, ListArgs};
use super::output;
use super::state_command::Shown;
use crate::stages::lifecycle::Live;
use crate::stages::supervisor::view::View;
use crate::state::{self, NotFound, Record, Status};
use anyhow::Result;
use std::collections::HashMap;
use std::path::Path;

const HEADINGS: [&str; 6] = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"];

/// What runc's table has: columns of at least twelve characters, three of them blank.
const MIN_WIDTH: usize = 12;
const PADDING: usize = 3;

pub fn list(context: &Context, args: ListArgs) -> Result<i32> {
    let mut containers = containers(&context.root)?;
    if args.quiet {
        let ids: String = containers.iter().map(|(record, ..)| format!("{}\n", record.id)).collect();
        output::print(&ids)?;
        return Ok(0);
    }
    let mut names = Names::default();
    let mut shown = Vec::with_capacity(containers.len());
    for (record, status, view) in &mut containers {
        shown.push(Shown::new(record, *status, names.of(record.owner), view.take()));
    }
    match args.format {
        Format::Json => output::print_json(&shown)?,
        Format::Table => output::print(&table(&shown))?,
    }
    Ok(0)
}

/// Every container that is there and can be read. What vanishes meanwhile is not there; what is damaged is told of, and
/// does not hide the others.
fn containers(root: &Path) -> Result<Vec<(Record, Status, Option<View>)>> {
    let mut containers = Vec::new();
    for id in state::list(root)? {
        let look = |live: Live| {
            let view = View::of(&live.container.state, &live.container.record)?;
            Ok((live.status()?, view, live.container.record))
        };
        match Live::open(root, &id).and_then(look) {
            Ok((status, view, record)) => containers.push((record, status, view)),
            Err(error) if error.is::<NotFound>() => {}
            Err(_) if !state::exists(root, &id) => {}
            Err(error) => eprintln!("rtx list: container {id:?} is left out: {error:#}"),
        }
    }
    Ok(containers)
}

fn table(containers: &[Shown<'_>]) -> String {
    let mut rows = vec![HEADINGS.map(str::to_owned)];
    rows.extend(containers.iter().map(|shown| {
        [
            shown.id.to_owned(),
            shown.pid.to_string(),
            shown.status.to_string(),
            shown.bundle.display().to_string(),
            shown.created.to_owned(),
            shown.owner.clone(),
        ]
    }));
    output::table(&rows, MIN_WIDTH, PADDING)
}

/// User names by id, each looked up once. From /etc/passwd alone: a name service would have to be loaded into a program
/// that is linked statically.
#[derive(Default)]
struct Names {
    passwd: Option<String>,
    known: HashMap<u32, String>,
}

impl Names {
    /// The name, or the number of a user that has none.
    fn of(&mut self, uid: u32) -> String {
        let passwd = self.passwd.get_or_insert_with(|| std::fs::read_to_string("/etc/passwd").unwrap_or_default());
        let name = || name_of(passwd, uid).map_or_else(|| uid.to_string(), str::to_owned);
        self.known.entry(uid).or_insert_with(name).clone()
    }
}

/// The name of a user by passwd(5).
fn name_of(passwd: &str, uid: u32) -> Option<&str> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_runcs() {
        let row = |id: &str, bundle: &str| [id, "0", "stopped", bundle, "T", "root"].map(str::to_owned);
        let rows = [HEADINGS.map(str::to_owned), row("c1", "/a/longer/bundle")];
        let text = output::table(&rows, MIN_WIDTH, PADDING);
        let expected = "ID          PID         STATUS      BUNDLE             CREATED     OWNER\n\
                        c1          0           stopped     /a/longer/bundle   T           root\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn owners_have_names() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\n:x:7:7::/:\nme:x:1000:1000::/home/me:/bin/sh\n";
        assert_eq!(name_of(passwd, 1000), Some("me"));
        assert_eq!(name_of(passwd, 0), Some("root"));
        assert_eq!(name_of(passwd, 7), None);
    }
}
