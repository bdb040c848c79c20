"""Owns gatefold.abuse.v1.DetectorService at the wire."""

from types import MappingProxyType

from gatefold.abuse.v1 import detector_pb2, detector_pb2_grpc

from libs import errors
from libs.caller import current
from services.abuse.domain.detector import Mode
from services.abuse.usecases import present
from services.abuse.usecases.detectors import Detectors

_MODES = MappingProxyType({number: mode for mode, number in present.MODES.items()})


class DetectorServicer(detector_pb2_grpc.DetectorServiceServicer):
    """What is looked for."""

    def __init__(self, detectors: Detectors) -> None:
        self._detectors = detectors

    async def ListDetectors(
        self, request: detector_pb2.ListDetectorsRequest, context: object
    ) -> detector_pb2.ListDetectorsResponse:
        """Lists detectors."""
        return await self._detectors.list_detectors()

    async def TuneDetector(self, request: detector_pb2.TuneDetectorRequest, context: object) -> detector_pb2.Detector:
        """Changes a detector."""
        mode: Mode | None = _MODES.get(request.mode)
        if mode is None:
            raise errors.invalid("detector_mode", "Say in which mode it is to be.", field="mode")
        steps = {signal.name: [[step.threshold, step.weight] for step in signal.steps] for signal in request.signals}
        return await self._detectors.tune(request.name, request.revision, mode, steps, current().actor)
