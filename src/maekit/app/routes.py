"""What the page asks, and who answers it."""

import asyncio
import base64
from collections.abc import Callable, Sequence
from functools import partial
from importlib import resources
from typing import Annotated, Any, Literal

import torch
from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from torch import Tensor

from maekit.app.exhibit import Exhibit, shown
from maekit.app.gallery import Gallery
from maekit.app.guards import MOST_UPLOADED, UPLOAD
from maekit.app.images import Images, Unknown, as_png
from maekit.errors import ImageError, MaekitError
from maekit.inference.colours import coloured

_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_MOST_UNITS = 1 << 16
_LEFT = 499  # whoever asked has; nobody reads it

_Number = Annotated[int, Field(ge=0, lt=1 << 31)]
_Name = Annotated[str, Field(max_length=80)]
_Bands = Annotated[list[_Number], Field(max_length=3)]


class Drawn(BaseModel, extra="forbid"):
    """A mask to draw."""

    weights: _Number
    kind: _Name
    ratio: Annotated[float, Field(gt=0, lt=1)]
    seed: Annotated[int, Field(ge=0, lt=1 << 53)]


class Seen(BaseModel, extra="forbid"):
    """An image by the eyes of one of the weights."""

    weights: _Number
    image: _Name
    bands: _Bands = []


class Masked(Seen, extra="forbid"):
    """The same with a mask: `1` hides. grid, planes: of the units that it counts."""

    masked: Annotated[str, Field(max_length=_MOST_UNITS, pattern="^[01]+$")]
    grid: tuple[_Number, _Number]
    planes: _Number = 1
    statistics: Literal["visible", "original"] = "visible"


class Page:
    """All that can be asked, over one set of weights. answers: how often a model answered."""

    def __init__(self, exhibits: Sequence[Exhibit], images: Images, gallery: Gallery | None) -> None:
        self._exhibits, self._images, self._gallery = exhibits, images, gallery
        self._turn = asyncio.Lock()
        self._others = CapacityLimiter(4)
        self.answers = 0

    def app(self) -> FastAPI:
        """The routes."""
        app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
        files = {entry.name: entry.read_bytes() for entry in resources.files("maekit.app").joinpath("page").iterdir()}

        async def file(name: str = "index.html") -> Response:
            if name not in files:
                return JSONResponse({"message": "there is no such page"}, 404)
            return Response(files[name], media_type=_TYPES.get("." + name.rpartition(".")[2], "text/plain"))

        app.get("/")(partial(file, "index.html"))
        app.get("/page/{name}")(file)
        app.get("/api/about")(self.about)
        app.get("/api/thumbnails/{name}")(self.thumbnail)
        app.post(UPLOAD)(self.upload)
        app.post("/api/mask")(self.mask)
        app.post("/api/original")(self.original)
        for name, kind in (("reconstruct", Masked), ("picture", Masked), ("recognise", Seen), ("features", Seen)):
            app.post(f"/api/{name}")(self._by_model(getattr(self, name), kind))
        app.add_exception_handler(MaekitError, _refusal)
        app.add_exception_handler(Unknown, _unknown)
        app.add_exception_handler(RequestValidationError, _not_understood)
        app.add_exception_handler(Exception, _failure)
        return app

    async def about(self) -> dict[str, Any]:
        """What is here."""
        return {
            "weights": [exhibit.describe() for exhibit in self._exhibits],
            "images": await to_thread.run_sync(self._images.offered),
            "gallery": len(self._gallery.numbers) if self._gallery else 0,
            "most_uploaded": MOST_UPLOADED,
        }

    async def thumbnail(self, name: str) -> Response:
        """A small picture of an image."""
        data = await to_thread.run_sync(self._images.thumbnail, name, limiter=self._others)
        return Response(data, media_type="image/png", headers={"content-disposition": "inline"})

    async def upload(self, request: Request) -> dict[str, str]:
        """A picture, as the body of the request: its name here."""
        return {"image": await to_thread.run_sync(self._images.add, await request.body(), limiter=self._others)}

    async def mask(self, asked: Drawn) -> dict[str, Any]:
        """A mask of a kind, as `1` and `0`."""
        masked = self._exhibit(asked.weights).draw(asked.kind, asked.ratio, asked.seed)
        return {"masked": "".join(map(str, masked.int().tolist()))}

    async def original(self, asked: Seen) -> dict[str, Any]:
        """The image as one of the weights is shown it."""

        def work() -> dict[str, Any]:
            exhibit = self._exhibit(asked.weights)
            view = exhibit.seen if exhibit.painter is None else exhibit.whole
            return {"picture": _embedded(shown(self._images.get(asked.image, view), asked.bands))}

        return await to_thread.run_sync(work, limiter=self._others)

    def reconstruct(self, asked: Masked) -> dict[str, Any]:
        """What is painted where the mask hides."""
        exhibit = self._exhibit(asked.weights)
        image, masked = self._masked(exhibit, asked)
        painted = exhibit.paint(image, masked, asked.statistics, asked.bands)
        return {
            "masked": _embedded(painted.masked),
            "reconstruction": _embedded(painted.reconstruction),
            "original": _embedded(painted.original),
            "errors": [[round(float(value), 2) for value in row] for row in painted.errors],
            "hidden": int(masked.sum()),
            "units": len(masked),
            "caption": painted.caption,
        }

    def picture(self, asked: Masked) -> Response:
        """The picture to keep."""
        exhibit = self._exhibit(asked.weights)
        data = exhibit.picture(*self._masked(exhibit, asked), asked.statistics)
        return Response(data, media_type="image/png")

    def recognise(self, asked: Seen) -> dict[str, Any]:
        """What a classifier takes the image for."""
        exhibit = self._exhibit(asked.weights)
        return {"top": exhibit.recognise(self._images.get(asked.image, exhibit.seen))}

    def features(self, asked: Seen) -> dict[str, Any]:
        """Patch features as colours, and the nearest images of the gallery."""
        exhibit = self._exhibit(asked.weights)
        image = self._images.get(asked.image, exhibit.seen)
        nearest = self._gallery.nearest(exhibit, exhibit.pooled(image[None])[0]) if self._gallery else []
        colours = coloured(exhibit.model, image)
        return {"colours": _embedded(colours), "seen": _embedded(shown(image, asked.bands)), "nearest": nearest}

    def _exhibit(self, number: int) -> Exhibit:
        if number >= len(self._exhibits):
            raise Unknown(f"weights {number}")
        return self._exhibits[number]

    def _masked(self, exhibit: Exhibit, asked: Masked) -> tuple[Tensor, Tensor]:
        units = torch.tensor([unit == "1" for unit in asked.masked])
        return self._images.get(asked.image, exhibit.whole), exhibit.fitted(units, asked.grid, asked.planes)

    def _by_model(self, answer: Callable[[Any], Any], kind: type[BaseModel]) -> Callable[..., Any]:
        """A route on which what is asked is answered when its turn has come; not for who has left by then."""

        async def route(asked: kind, request: Request) -> Any:  # type: ignore[valid-type]
            async with self._turn:
                if await request.is_disconnected():
                    return Response(status_code=_LEFT)
                self.answers += 1
                return await to_thread.run_sync(answer, asked)

        return route


def _embedded(pixels: Any) -> str:
    return "data:image/png;base64," + base64.b64encode(as_png(pixels)).decode()


async def _refusal(_: Request, error: Exception) -> Response:
    status = 415 if isinstance(error, ImageError) else 422
    return JSONResponse({"message": " ".join(str(error).split())}, status)


async def _unknown(_: Request, error: Exception) -> Response:
    return JSONResponse({"message": f"there is no {error} here", "unknown": True}, 404)


async def _failure(_: Request, error: Exception) -> Response:
    return JSONResponse({"message": f"the page failed ({type(error).__name__}); the terminal says where"}, 500)


async def _not_understood(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"][1:]))
    return JSONResponse({"message": f"{where}: {first['msg']}"}, 422)
