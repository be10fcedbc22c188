"""A protocol of small networks on small pictures."""

SMALL = {
    "train": {
        "data": {"folders": ["train"], "validation": "backgrounds/camvid", "patch": 32},
        "rain": {"kinds": "both"},
        "optimiser": {"iterations": 4, "batch": 2, "warm_up": 1},
        "machine": {"accelerator": "cpu", "threads": 1},
        "validate_every": 2,
        "checkpoint_every": 2,
    },
    "test": {"scenes": {"backgrounds/camvid": 1, "rain100/clean": 1}, "strengths": [0.25, 1.0], "seed": 1},
    "systems": {
        "student": {"network": {"name": "daiam-nano"}, "teacher": "daiam-nano"},
        "rescan": {"network": {"name": "rescan", "options": {"steps": 1}}},
        "daiam-nano": {"network": {"name": "daiam-nano"}},
    },
}
