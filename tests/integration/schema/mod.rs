//! The JSON schema of config.json, property by property: what rtx does with each (`table`), that every violation is
//! found and refused (`violations`), that what is no document costs nothing (`documents`), that mistakes in all areas are told at once (`mistakes`), and the limits that no other
//! suite has a case for (`limits`).

mod documents;
mod limits;
mod mistakes;
pub mod samples;
mod table;
mod violations;

/// A line of properties.txt.
pub struct Property {
    /// A JSON pointer with `*` for the elements of lists and maps.
    pub pointer: &'static str,
    pub kind: &'static str,
    pub required: bool,
    /// Names between bars, a pattern after `~`, `MIN..MAX`, `nonempty`, or nothing.
    pub demand: &'static str,
}

impl Property {
    /// The last step of the pointer.
    pub fn name(&self) -> &'static str {
        self.pointer.rsplit('/').next().unwrap_or("")
    }

    /// Whether this is a property of an object and not an element of a list or a map.
    pub fn is_named(&self) -> bool {
        self.name() != "*"
    }
}

/// Every property, parents first.
pub fn properties() -> Vec<Property> {
    let lines = include_str!("properties.txt").lines().filter(|line| !line.starts_with('#'));
    lines.map(parse).collect()
}

fn parse(line: &'static str) -> Property {
    let (pointer, rest) = line.split_once(' ').expect("a pointer and a type");
    let (kind, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let required = rest == "required" || rest.starts_with("required ");
    let demand = if required { rest.trim_start_matches("required").trim_start() } else { rest };
    Property { pointer, kind, required, demand }
}
