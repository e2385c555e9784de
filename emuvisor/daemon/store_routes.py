"""The store as a whole."""

from dataclasses import asdict

from fastapi import APIRouter, Response

from emuvisor.daemon.bodies import StoreCheckBody, StoreGcBody
from emuvisor.daemon.dependencies import ServiceOf, Wait, began
from emuvisor.daemon.operations import Operation

__all__ = ["router"]

router = APIRouter(prefix="/v1/store", tags=["store"])
"""Below /v1/store."""


@router.post("/check", status_code=202, responses={200: {"model": Operation}})
async def check(body: StoreCheckBody, service: ServiceOf, response: Response, wait: Wait = 0) -> Operation:
    """Read everything in the store; the result is a list of what is wrong."""
    manager = service.manager
    operation = service.operations.start(
        "store-check", "", lambda _: [asdict(problem) for problem in manager.check_store(repair=body.repair)]
    )
    return await began(service, response, operation, wait)


@router.post("/gc", status_code=202, responses={200: {"model": Operation}})
async def gc(body: StoreGcBody, service: ServiceOf, response: Response, wait: Wait = 0) -> Operation:
    """Free what nobody needs; the result is what that was."""
    manager = service.manager
    operation = service.operations.start(
        "store-gc", "", lambda _: asdict(manager.collect_garbage(everything=body.everything))
    )
    return await began(service, response, operation, wait)
