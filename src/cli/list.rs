//! `rtx list`: the containers of one state directory, as a table, as JSON or by id alone.

use super::Context;
use super::args::{Format, ListArgs};
use super::output::{self, Table};
use super::report;
use super::state_command::{Shown, pid as shown_pid};
use crate::stages::lifecycle::{self, Live};
use crate::stages::supervisor::view::View;
use crate::state::{Brief, Line, Listing, NotFound, Record, Status};
use anyhow::Result;
use std::collections::BTreeMap;

const HEADINGS: [&str; 6] = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"];

/// What runc's table has: columns of at least twelve characters, three of them blank.
const MIN_WIDTH: usize = 12;
const PADDING: usize = 3;

#[inline(never)]
pub fn list(context: &Context, args: ListArgs) -> Result<i32> {
    let listing = Listing::read(&context.root)?;
    let text = match (args.quiet, args.format) {
        (true, _) => {
            let mut ids = String::new();
            each(&listing, |record, _, _| {
                ids += record.id;
                ids.push('\n');
                Ok(())
            })?;
            ids
        }
        (false, Format::Json) => json(&listing)?,
        (false, Format::Table) => table(&listing)?,
    };
    output::print(&text)?;
    Ok(0)
}

/// Shows every container that is there and can be read. What vanishes meanwhile is not there; what is damaged is told of,
/// and does not hide the others. Of each only what is shown of it is kept.
fn each(listing: &Listing, mut show: impl FnMut(&Brief, Status, Option<View>) -> Result<()>) -> Result<()> {
    let mut line = Line::default();
    for id in listing.ids() {
        match look(listing, id, &mut line) {
            Ok(Seen::Glance(status, record)) => show(&record, status, None)?,
            Ok(Seen::Closer(status, view, record)) => show(&Brief::from(&*record), status, view)?,
            Err(error) if error.is::<NotFound>() => {}
            Err(_) if !listing.has(id) => {}
            Err(error) => report::remark(&format!("rtx list: container {id:?} is left out: {error:#}")),
        }
    }
    Ok(())
}

enum Seen<'l> {
    Glance(Status, Brief<'l>),
    Closer(Status, Option<View>, Box<Record>),
}

fn look<'l>(listing: &Listing, id: &str, line: &'l mut Line) -> Result<Seen<'l>> {
    if let Some((status, record)) = lifecycle::glance(listing, id, line)? {
        return Ok(Seen::Glance(status, record));
    }
    let live = Live::open_listed(listing, id)?;
    let view = View::of(&live.container.state, &live.container.record)?;
    Ok(Seen::Closer(live.status()?, view, Box::new(live.container.record)))
}

fn json(listing: &Listing) -> Result<String> {
    let mut names = Names::default();
    let mut text = b"[".to_vec();
    each(listing, |record, status, view| {
        if text.len() > 1 {
            text.push(b',');
        }
        let shown = Shown::new(record, status, names.of(record.owner).to_owned(), view)?;
        Ok(serde_json::to_writer(&mut text, &shown)?)
    })?;
    text.extend_from_slice(b"]\n");
    Ok(String::from_utf8(text)?)
}

fn table(listing: &Listing) -> Result<String> {
    let mut names = Names::default();
    let mut table = Table::new(HEADINGS);
    each(listing, |record, status, _| {
        let (pid, bundle) = (shown_pid(record, status).to_string(), record.bundle.to_string_lossy());
        table.row(&[record.id, &pid, status.as_str(), &bundle, record.created, names.of(record.owner)]);
        Ok(())
    })?;
    Ok(table.text(MIN_WIDTH, PADDING))
}

/// User names by id, each looked up once. From /etc/passwd alone: a name service would have to be loaded into a program
/// that is linked statically.
#[derive(Default)]
struct Names {
    passwd: Option<String>,
    known: BTreeMap<u32, String>,
}

impl Names {
    /// The name, or the number of a user that has none.
    fn of(&mut self, uid: u32) -> &str {
        let passwd = self.passwd.get_or_insert_with(|| std::fs::read_to_string("/etc/passwd").unwrap_or_default());
        let name = || name_of(passwd, uid).map_or_else(|| uid.to_string(), str::to_owned);
        self.known.entry(uid).or_insert_with(name)
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
        let mut table = Table::new(HEADINGS);
        table.row(&["c1", "0", "stopped", "/a/longer/bundle", "T", "root"]);
        let text = table.text(MIN_WIDTH, PADDING);
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
