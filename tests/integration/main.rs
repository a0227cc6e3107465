mod cgroup_module;
