"""What the services of a private system show at /metrics."""

import aiohttp
import psutil
from prometheus_client.parser import text_string_to_metric_families


async def read_metrics(process: psutil.Process, service: str) -> str:
    """The text that a service's process shows, at the port that its environment names."""
    variable = "FLORIN_API_PORT" if service == "api" else "FLORIN_PROBE_PORT"
    url = f"http://127.0.0.1:{process.environ()[variable]}/metrics"
    async with aiohttp.ClientSession() as http, http.get(url) as response:
        response.raise_for_status()
        return await response.text()


def total(text: str, name: str) -> float:
    """The sum of a counter over all its labels."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    )


def batch_sizes(before: dict[str, str], after: dict[str, str]) -> dict[str, float]:
    """Rows in a mean statement between two readings of all services, by step."""
    sums, counts = _batches(after)
    earlier_sums, earlier_counts = _batches(before)
    sizes = {}
    for step, count in counts.items():
        statements = count - earlier_counts.get(step, 0.0)
        if statements > 0:
            sizes[step] = round((sums[step] - earlier_sums.get(step, 0.0)) / statements, 1)
    return sizes


def _batches(texts: dict[str, str]) -> tuple[dict[str, float], dict[str, float]]:
    sums: dict[str, float] = {}
    counts: dict[str, float] = {}
    for text in texts.values():
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == "florin_batch_size_sum":
                    sums[sample.labels["step"]] = sample.value
                elif sample.name == "florin_batch_size_count":
                    counts[sample.labels["step"]] = sample.value
    return sums, counts
