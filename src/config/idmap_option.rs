//! The value of the mount option `idmap=`, as crun has it: `uids=0-1000-10#20-2000-1;gids=@0-0-10`. Each range is the
//! first id of the file system, what it becomes on the host, and how many follow. After an `@`, what it becomes is an id
//! of the container's user namespace.

use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder};

/// The maps of one option, for the user namespace of the mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Maps {
    pub uids: Vec<LinuxIdMapping>,
    pub gids: Vec<LinuxIdMapping>,
}

/// Takes the value apart. The maps of the container's user namespace are for relative ranges.
///
/// # Errors
/// What is wrong with it, in words.
pub fn parse(
    value: &str,
    container_uids: &[LinuxIdMapping],
    container_gids: &[LinuxIdMapping],
) -> Result<Maps, String> {
    let mut maps = Maps { uids: Vec::new(), gids: Vec::new() };
    for part in value.split(';').filter(|part| !part.is_empty()) {
        let (list, ranges, container) = match part.split_once('=') {
            Some(("uids", ranges)) => (&mut maps.uids, ranges, container_uids),
            Some(("gids", ranges)) => (&mut maps.gids, ranges, container_gids),
            _ => return Err(format!("{part:?} is neither uids=… nor gids=…")),
        };
        for range in ranges.split('#') {
            list.push(parse_range(range, container)?);
        }
    }
    if maps.uids.is_empty() || maps.gids.is_empty() {
        return Err("an idmapped mount needs both uids and gids".to_owned());
    }
    Ok(maps)
}

fn parse_range(text: &str, container: &[LinuxIdMapping]) -> Result<LinuxIdMapping, String> {
    let wrong = || format!("{text:?} is no range of ids such as 0-100000-65536");
    let (numbers, relative) = text.strip_prefix('@').map_or((text, false), |numbers| (numbers, true));
    let numbers: Vec<u32> = numbers.split('-').map(str::parse).collect::<Result<_, _>>().map_err(|_| wrong())?;
    let [inside, becomes, size] = numbers[..] else { return Err(wrong()) };
    let host = if relative { on_host(becomes, size, container)? } else { becomes };
    LinuxIdMappingBuilder::default().container_id(inside).host_id(host).size(size).build().map_err(|_| wrong())
}

/// What ids of the container are on the host. A range that reaches beyond one line of the map has no single answer.
fn on_host(id: u32, size: u32, container: &[LinuxIdMapping]) -> Result<u32, String> {
    let holds = |map: &&LinuxIdMapping| {
        let start = u64::from(map.container_id());
        start <= u64::from(id) && u64::from(id) + u64::from(size) <= start + u64::from(map.size())
    };
    let map = container
        .iter()
        .find(holds)
        .ok_or_else(|| format!("{size} ids from {id} on are in no one range of the container's user namespace"))?;
    map.host_id()
        .checked_add(id - map.container_id())
        .ok_or_else(|| format!("id {id} of the container goes beyond the last id of the host"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(inside: u32, host: u32, size: u32) -> LinuxIdMapping {
        LinuxIdMappingBuilder::default().container_id(inside).host_id(host).size(size).build().unwrap()
    }

    #[test]
    fn absolute_and_relative_ranges() {
        let maps = parse("uids=0-1-10#10-11-10;gids=0-100-10", &[], &[]).unwrap();
        assert_eq!(maps.uids, [map(0, 1, 10), map(10, 11, 10)]);
        assert_eq!(maps.gids, [map(0, 100, 10)]);
        let container = [map(0, 0, 1), map(1, 2, 1000)];
        let maps = parse("uids=@1-3-10;gids=@0-0-1", &container, &container).unwrap();
        assert_eq!((maps.uids, maps.gids), (vec![map(1, 4, 10)], vec![map(0, 0, 1)]));
    }

    #[test]
    fn what_is_no_map() {
        for wrong in
            ["", "uids=0-1-2", "uids=0-1;gids=0-1-1", "uids=a-b-c;gids=0-0-1", "ids=0-0-1", "uids=@0-0-1;gids=0-0-1"]
        {
            assert!(parse(wrong, &[], &[]).is_err(), "{wrong}");
        }
    }
}
