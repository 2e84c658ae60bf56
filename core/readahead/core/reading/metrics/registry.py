"""All metrics of the ruler, in the order in which they are shown."""

from __future__ import annotations

from readahead.core.reading.metrics import (
    andes_qoe,
    capacity,
    e2e_s,
    effective_throughput_tok_s,
    fluidity_index,
    goodput_req_s,
    goodput_tok_s,
    slo_attainment,
    smooth_goodput_censored_tok_s,
    smooth_goodput_tok_s,
    tbt_s,
    throughput_tok_s,
    tpot_s,
    ttft_s,
    user_idle_censored_s,
    user_idle_s,
)
from readahead.core.reading.metrics.metric import Metric

METRICS: tuple[Metric, ...] = (
    smooth_goodput_tok_s.METRIC,
    smooth_goodput_censored_tok_s.METRIC,
    user_idle_s.METRIC,
    user_idle_censored_s.METRIC,
    slo_attainment.METRIC,
    goodput_req_s.METRIC,
    goodput_tok_s.METRIC,
    throughput_tok_s.METRIC,
    effective_throughput_tok_s.METRIC,
    capacity.METRIC,
    ttft_s.METRIC,
    tbt_s.METRIC,
    tpot_s.METRIC,
    e2e_s.METRIC,
    andes_qoe.METRIC,
    fluidity_index.METRIC,
)
