"""The comparison's tables beside the paper's."""

from derain.training.comparison.protocol import PROTOCOL, read_protocol
from derain.training.comparison.tables import COMPACT, INTENSITIES, PAPER, STEPS, TABLE_6, TABLE_7, tables
from derain.training.models import PEERS

NANO = PROTOCOL.with_name("comparison-nano.yaml")


def test_every_row_of_every_table_is_a_system_of_the_protocol():
    systems = set(read_protocol().systems)
    rows = {*TABLE_6, *TABLE_7, *INTENSITIES, *COMPACT, *(f"{name}-distilled" for name in COMPACT)}
    rows |= {f"{name}-{steps}-steps" for name in STEPS for steps in (2, 3)}
    assert rows <= systems and set(TABLE_6) | set(TABLE_7) == set(PAPER) and set(PEERS) <= systems
    assert set(read_protocol(NANO).systems) <= {
        *TABLE_6,
        *TABLE_7,
        "daiam-distilled",
        "daiam-2-steps",
        "daiam-3-steps",
    }


def evaluation(psnr: float, patches: int = 100) -> dict:
    quality = {"psnr_rgb": {"input": 15.0, "output": psnr}, "ssim_rgb": {"input": 0.5, "output": 0.8125}}
    return {**quality, "groups": {"strength 1": quality}, "patches": patches, "patches_wanted": 100}


def test_tables_show_what_is_measured_how_far_it_got_and_a_dash_for_the_rest():
    costs = {"daiam": {"parameters": 3_601_105, "macs": 890_395_200_000, "ms": 11.234}}
    evaluations = {"daiam": evaluation(24.5), "prenet": evaluation(22.25, 50)}
    text = tables(evaluations, costs, read_protocol().networks)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert "| DAiAM | 24.50 | 0.812 | 3,601,105 | 890 | 11.23 | 100 | 24.67 | 0.819 | 3.60 M | 890 | 130 |" in rows
    assert "| PReNet | 22.25 | 0.812 | — | — | — | 50 of 100 | 23.29 | 0.789 | 0.17 M | 337 | 100 |" in rows
    assert "| D-DAiAM(3) | — | — | 25.68 | 0.833 | — |" in rows
    assert "| rainy | 15.00 |  |" in rows
    assert "| `daiam-edge` | 3 | — | — | — | — | — |" in rows
    for table in text.split("### ")[1:]:
        assert len({line.count("|") for line in table.splitlines() if line.startswith("|")}) == 1
    assert [row for row in rows if row.startswith("| DAiAM | 3,601,105")] == [
        "| DAiAM | 3,601,105 | 890 | 11.23 | 24.50 | 0.812 |  |  | 100 |"
    ]


def test_tables_are_of_the_protocols_systems_alone():
    evaluations = {"daiam": evaluation(24.5), "daiam-distilled": evaluation(25.0)}
    systems = {"daiam": "daiam-nano", "daiam-distilled": "daiam-nano", "dam-zero": "dam-zero"}
    text = tables(evaluations, {}, systems)
    assert "| DAM(zero) |" in text and "PReNet" not in text and "daiam-edge" not in text
    assert "| DAiAM (`daiam-nano`) | — | — | — | 24.50 | 0.812 | 25.00 | 0.812 | 100 |" in text
    alone = tables({}, {}, {"dam-zero": "dam-zero"})
    assert "Table 6" not in alone and "Table 7" in alone
