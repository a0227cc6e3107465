//! What `events` tells of resctrl, in runc's JSON (`intel_rdt`): what the processors offer, what the container's class may
//! use, and, where it has a group to count by, what it does use. Linux: Documentation/filesystems/resctrl.rst.

use super::resctrl::Groups;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Left out where the processors have nothing of the kind, or the container no class.
#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Stats {
    #[serde(skip_serializing_if = "Option::is_none")]
    l3_cache_info: Option<CacheInfo>,
    #[serde(skip_serializing_if = "String::is_empty")]
    l3_cache_schema_root: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    l3_cache_schema: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    mem_bw_info: Option<BandwidthInfo>,
    #[serde(skip_serializing_if = "String::is_empty")]
    mem_bw_schema_root: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    mem_bw_schema: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    mbm_stats: Option<Vec<Bandwidth>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cmt_stats: Option<Vec<Occupancy>>,
}

#[derive(Debug, Default, PartialEq, Serialize)]
struct CacheInfo {
    #[serde(skip_serializing_if = "String::is_empty")]
    cbm_mask: String,
    #[serde(skip_serializing_if = "is_zero")]
    min_cbm_bits: u64,
    #[serde(skip_serializing_if = "is_zero")]
    num_closids: u64,
}

#[derive(Debug, Default, PartialEq, Serialize)]
struct BandwidthInfo {
    #[serde(skip_serializing_if = "is_zero")]
    bandwidth_gran: u64,
    #[serde(skip_serializing_if = "is_zero")]
    delay_linear: u64,
    #[serde(skip_serializing_if = "is_zero")]
    min_bandwidth: u64,
    #[serde(skip_serializing_if = "is_zero")]
    num_closids: u64,
}

/// Bytes that went between memory and the cache of one domain, and those of the domain's own memory.
#[derive(Debug, Default, PartialEq, Serialize)]
struct Bandwidth {
    mbm_total_bytes: u64,
    mbm_local_bytes: u64,
}

/// Bytes of the cache of one domain.
#[derive(Debug, Default, PartialEq, Serialize)]
struct Occupancy {
    llc_occupancy: u64,
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// Reads what there is. Nothing of it is an error: what the processors lack has no files.
pub fn read(groups: &Groups) -> Stats {
    let info = groups.root.join("info");
    let (all, own) = (text(&groups.root.join("schemata")), text(&groups.class.join("schemata")));
    let mut stats = Stats::default();
    let cache = info.join("L3");
    if cache.is_dir() {
        stats.l3_cache_info = Some(CacheInfo {
            cbm_mask: text(&cache.join("cbm_mask")),
            min_cbm_bits: number(&cache.join("min_cbm_bits")),
            num_closids: number(&cache.join("num_closids")),
        });
        stats.l3_cache_schema_root = schema(&all, "L3");
        stats.l3_cache_schema = schema(&own, "L3");
    }
    let bandwidth = info.join("MB");
    if bandwidth.is_dir() {
        stats.mem_bw_info = Some(BandwidthInfo {
            bandwidth_gran: number(&bandwidth.join("bandwidth_gran")),
            delay_linear: number(&bandwidth.join("delay_linear")),
            min_bandwidth: number(&bandwidth.join("min_bandwidth")),
            num_closids: number(&bandwidth.join("num_closids")),
        });
        stats.mem_bw_schema_root = schema(&all, "MB");
        stats.mem_bw_schema = schema(&own, "MB");
    }
    let features = text(&info.join("L3_MON/mon_features"));
    let has = |name: &str| features.lines().any(|line| line == name);
    let domains = domains(&groups.monitor.as_ref().unwrap_or(&groups.class).join("mon_data"));
    if has("mbm_total_bytes") && has("mbm_local_bytes") {
        let of = |domain: &PathBuf| Bandwidth {
            mbm_total_bytes: number(&domain.join("mbm_total_bytes")),
            mbm_local_bytes: number(&domain.join("mbm_local_bytes")),
        };
        stats.mbm_stats = Some(domains.iter().map(of).collect());
    }
    if has("llc_occupancy") {
        let of = |domain: &PathBuf| Occupancy { llc_occupancy: number(&domain.join("llc_occupancy")) };
        stats.cmt_stats = Some(domains.iter().map(of).collect());
    }
    stats
}

/// `mon_L3_00`, `mon_L3_01`: the domains of the cache, in order.
fn domains(directory: &Path) -> Vec<PathBuf> {
    let is_of_cache =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"mon_L3_"));
    let entries = crate::sys::dir::entries(directory).unwrap_or_default();
    let mut found: Vec<_> = entries.iter().map(|entry| directory.join(&entry.name)).filter(is_of_cache).collect();
    found.sort();
    found
}

fn text(file: &Path) -> String {
    std::fs::read_to_string(file).map(|text| text.trim().to_owned()).unwrap_or_default()
}

/// What is no number, as `Unavailable`, counts nothing.
fn number(file: &Path) -> u64 {
    text(file).parse().unwrap_or(0)
}

/// The line of one resource. The kernel indents the names to one width.
fn schema(schemata: &str, resource: &str) -> String {
    let of_resource = |line: &&str| line.split_once(':').is_some_and(|(name, _)| name == resource);
    schemata.lines().map(str::trim).find(of_resource).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_by_the_whole_name() {
        let schemata = "    MB:0=100;1= 70\n    L3:0=7ff;1=01f\n  L3CODE:0=1\nSMBA:0=9\n";
        assert_eq!(schema(schemata, "MB"), "MB:0=100;1= 70");
        assert_eq!(schema(schemata, "L3"), "L3:0=7ff;1=01f");
        assert_eq!(schema(schemata, "L2"), "");
    }

    #[test]
    fn the_form_is_runcs() {
        assert_eq!(serde_json::to_string(&Stats::default()).unwrap(), "{}");
        let stats = Stats {
            l3_cache_info: Some(CacheInfo { cbm_mask: "7ff".into(), min_cbm_bits: 1, num_closids: 16 }),
            mbm_stats: Some(vec![Bandwidth { mbm_total_bytes: 5, mbm_local_bytes: 0 }]),
            ..Stats::default()
        };
        assert_eq!(
            serde_json::to_string(&stats).unwrap(),
            r#"{"l3_cache_info":{"cbm_mask":"7ff","min_cbm_bits":1,"num_closids":16},"mbm_stats":[{"mbm_total_bytes":5,"mbm_local_bytes":0}]}"#
        );
    }
}
