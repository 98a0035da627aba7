"""What size each rollout pool should have now, and why. Pure: values and a clock in, values out.

    demand -> enough..comfortable of each pool -> nearest size = the wish -> up at once, cordons lifted first
                                                                          -> down: see below

Down goes a pool to the largest wish of the last scale_down_seconds, by way of a cordon: the surplus workers get no new
work, and each may go when it holds none. So a pool is never smaller than the number of its workers that hold work, and
it does not shrink while a worker that may have users does not answer.
"""

from collections.abc import Sequence

from onlinerlhf.scaler.allocation import Demand, Wish, allocate, demand_of, is_sized_by_hand
from onlinerlhf.scaler.cordon import smallest_size, to_empty
from onlinerlhf.scaler.observation import Decision, Memory, Pipeline, PoolState, Reason

History = tuple[tuple[float, int], ...]


def decide(
    pipeline: Pipeline | None, pools: Sequence[PoolState], memory: Memory, *, now: float
) -> tuple[tuple[Decision, ...], Memory]:
    """One decision a pool, in the order given, and what to remember for the next call.

    `pipeline` None: Redis is away, and every pool that no operator sizes keeps its size. `now` is a monotone clock's.
    """
    demand = None if pipeline is None else demand_of(pipeline, pools)
    wishes = {} if demand is None else allocate(demand, pools)
    decisions: list[Decision] = []
    histories: dict[str, History] = {}
    for pool in pools:
        name = pool.spec.name
        if is_sized_by_hand(pool):
            # Forgotten, so that the size an operator chose stays for a whole window when the pool is automatic again.
            decisions.append(_by_hand(pool))
            continue
        wish = None if demand is None else wishes[name]
        history = memory.wishes.get(name) or ((now, pool.num_serving),)
        nearest = pool.replicas if wish is None else wish.nearest(pool.num_serving)
        histories[name] = history = _remember(history, now, nearest, keep_seconds=pool.spec.scale_down_seconds)
        if demand is None or wish is None:
            message = f"no signals from Redis: keeps {_replicas(pool.replicas)}"
            decisions.append(Decision(pool=name, replicas=pool.replicas, reason=Reason.HOLDING, message=message))
        else:
            decisions.append(_automatic(pool, demand, wish, history, now))
    return tuple(decisions), Memory(wishes=histories)


def _by_hand(pool: PoolState) -> Decision:
    name, fixed = pool.spec.name, pool.spec.fixed_replicas
    if pool.spec.paused or fixed is None:
        message = f"paused at {_replicas(pool.replicas)}"
        return Decision(pool=name, replicas=pool.replicas, reason=Reason.PAUSED, message=message)
    fixed = max(0, fixed)
    return Decision(pool=name, replicas=fixed, reason=Reason.FIXED, message=f"fixed at {_replicas(fixed)}")


def _automatic(pool: PoolState, demand: Demand, wish: Wish, history: History, now: float) -> Decision:
    """The largest wish of the window, or what keeps the pool above it."""
    spec = pool.spec
    wanted, (reason, message) = wish.nearest(pool.num_serving), _why(wish, demand, pool)
    window = _largest(history, since=now - spec.scale_down_seconds)
    if window > wanted:
        wanted, reason = window, Reason.STABILIZING
        message = f"{message}; {wish.comfortable} would do, but {window} were wanted in the last {_seconds(pool)}"
    if wanted > spec.max_replicas:
        wanted, reason = spec.max_replicas, Reason.AT_MAXIMUM
        message = f"{message}; at most {spec.max_replicas}"
    emptying = to_empty(pool, wanted)
    size = max(wanted, smallest_size(pool, emptying))
    if size > wanted:
        reason, message = Reason.WORK_IN_HAND, f"{message}; {_workers(len(emptying))} emptied first, then {wanted} do"
    silent = sum(worker.is_silent for worker in pool.workers)
    if silent and wanted < pool.replicas:
        size, reason = pool.replicas, Reason.HOLDING
        message = f"{silent} workers that may have users do not answer: keeps {_replicas(size)}; {wanted} would do"
    cordon = tuple(sorted(worker.name for worker in emptying))
    return Decision(pool=spec.name, replicas=size, reason=reason, message=message, cordon=cordon)


def _why(wish: Wish, demand: Demand, pool: PoolState) -> tuple[Reason, str]:
    spec = pool.spec
    work = (
        f"backlog {demand.backlog}, {spec.samples_per_replica} a replica, learner admits {demand.admitted} more; "
        f"users {demand.users}, {spec.users_per_replica} a replica"
    )
    if wish.unbounded > spec.max_replicas:
        return Reason.AT_MAXIMUM, f"{work}; {wish.unbounded} would be used, at most {spec.max_replicas}"
    if demand.is_empty and spec.min_replicas == 0:
        return Reason.IDLE, "no prompts, no users"
    if wish.is_for_users:
        return Reason.USERS, work
    if demand.is_bound_by_learner:
        return Reason.LEARNER_BOUND, work
    if wish.nearest(pool.num_serving) > spec.min_replicas:
        return Reason.BACKLOG, work
    if spec.min_replicas == 0:
        return Reason.IDLE, f"{work}; other pools' replicas are enough"
    return Reason.AT_MINIMUM, f"{work}; at least {spec.min_replicas}"


def _remember(history: History, now: float, wish: int, *, keep_seconds: float) -> History:
    """The wish added; without those too old, and those that a later one at least as large makes immaterial."""
    kept = [(at, size) for at, size in history if at > now - keep_seconds and size > wish]
    return (*kept, (now, wish))


def _largest(history: History, *, since: float) -> int:
    """The largest wish after `since`; the newest is always one."""
    return max([size for at, size in history if at > since], default=history[-1][1])


def _seconds(pool: PoolState) -> str:
    return f"{pool.spec.scale_down_seconds:g} s"


def _replicas(count: int) -> str:
    return f"{count} replica" if count == 1 else f"{count} replicas"


def _workers(count: int) -> str:
    return "1 worker is" if count == 1 else f"{count} workers are"
