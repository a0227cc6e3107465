# The JSON of contrib/bench/run as a picture: jq --raw-output --from-file contrib/bench/chart.jq FILE >bench.svg
# A group for each command and a bar for each runtime: wall time, and darker within it the CPU time, each the minimum.

def escape: gsub("&"; "&amp;") | gsub("<"; "&lt;");
def round2: . * 100 | round / 100;
["#2c7fb8", "#d95f0e", "#756bb1", "#31a354", "#777777", "#c51b8a"] as $colours
| . as $bench
| [.rows[] | select(.command)] as $rows
| ($rows | reduce .[] as $row ([]; if index([$row.runtime]) then . else . + [$row.runtime] end)) as $runtimes
| ($rows | reduce .[] as $row ([]; if index([$row.command]) then . else . + [$row.command] end)) as $commands
| 960 as $width | 110 as $left | 14 as $bar
| ([$rows[].wall_us.min] | max) as $longest
| (($width - $left - 150) / $longest) as $scale
| (reduce $commands[] as $command ({y: 60, parts: []};
    .y as $top
    | [$rows[] | select(.command == $command)] as $group
    | .parts += ["<text x=\"\($left - 8)\" y=\"\($top + 12)\" text-anchor=\"end\" font-weight=\"bold\">\($command | escape)</text>"]
    | .parts += [range($group | length) as $i | $group[$i] as $row
        | ($runtimes | index([$row.runtime])) as $number
        | ($top + $i * $bar) as $y
        | "<rect x=\"\($left)\" y=\"\($y)\" width=\"\($row.wall_us.min * $scale | round2)\" height=\"\($bar - 3)\" fill=\"\($colours[$number % 6])\" opacity=\"0.45\"/>"
        + "<rect x=\"\($left)\" y=\"\($y)\" width=\"\([$row.cpu_us.min, $row.wall_us.min] | min * $scale | round2)\" height=\"\($bar - 3)\" fill=\"\($colours[$number % 6])\"/>"
        + "<text x=\"\($left + $row.wall_us.min * $scale + 6 | round2)\" y=\"\($y + 9)\">\($row.runtime | escape) \($row.wall_us.min / 1000 | round2) (\($row.cpu_us.min / 1000 | round2))</text>"]
    | .y += ($group | length) * $bar + 12)) as $drawn
| "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"\($width)\" height=\"\($drawn.y)\" viewBox=\"0 0 \($width) \($drawn.y)\" font-family=\"sans-serif\" font-size=\"10\">",
  "<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>",
  "<text x=\"16\" y=\"22\" font-size=\"14\">ms of wall time (and of CPU time), minimum of \($bench.rounds) interleaved rounds</text>",
  "<text x=\"16\" y=\"40\">Linux \($bench.kernel | escape), \($bench.cpus) CPUs, load \($bench.load | escape), \($bench.hierarchies) cgroup hierarchies</text>",
  $drawn.parts[],
  "</svg>"
