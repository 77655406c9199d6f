"""From a document's price to its wire model."""

from api.bodies import SubmittedExperiment
from api.price_schemas import JobPriceRead, MemoryPart, PriceRead
from store.pricing import UTILISATION, price


def priced(submitted: SubmittedExperiment, device: str) -> PriceRead:
    """What a sound document costs."""
    spec = submitted.spec
    found = price(spec, device)
    first: dict[str, str] = {}
    jobs = []
    for job in found.jobs:
        earlier = first.setdefault(job.content, job.name)
        memory = job.memory
        jobs.append(
            JobPriceRead(
                name=job.name,
                kind=job.kind,
                runs=job.runs,
                processes=job.processes,
                memory_bytes=None if memory is None else memory.total,
                memory=[] if memory is None else [MemoryPart(name=n, bytes=size) for n, size in memory.parts.items()],
                fits=job.fits,
                operations=job.operations,
                tokens=job.tokens,
                device_hours_low=job.hours.low,
                device_hours_high=job.hours.high,
                judge_price=job.judge_price,
                problem=job.problem,
                same_as="" if earlier == job.name else earlier,
            )
        )
    worst, best = UTILISATION
    return PriceRead(
        name=spec.name,
        num_jobs=len(spec.jobs),
        num_runs=sum(len(job.seeds) for job in spec.jobs),
        num_assumed=len(spec.assumed),
        num_published=len(spec.published),
        device=found.device.label,
        utilisation_low=worst,
        utilisation_high=best,
        operations=found.operations,
        device_hours_low=found.hours.low,
        device_hours_high=found.hours.high,
        judge_price=found.judge_price,
        jobs=jobs,
    )
