"""mnet chart: every runtime that it offers can be timed."""

from mnet_jax.commands import cli
from mnet_jax.measuring import latency, measurements


def test_every_runtime_on_offer_can_be_timed(tmp_path, capsys):
    assert measurements.RUNTIMES.keys() == latency._RUNTIMES.keys()
    picture = tmp_path / "chart.png"
    assert cli.main(["chart", "--runtime", "tflite", "--out", str(picture)]) == 2
    assert "unknown runtime 'tflite'; choose one of: jax" in capsys.readouterr().err
    assert not picture.exists()
