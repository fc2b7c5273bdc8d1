"""`init_app`: the server's routes, and how they take a request apart for the model."""

from __future__ import annotations

from flask import Flask, jsonify, request
from flask.typing import ResponseReturnValue

from label_studio_ml.model import LabelStudioMLBase
from label_studio_ml.response import ModelResponse

TRAIN_EVENTS = ("ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATION_DELETED", "START_TRAINING")


def init_app(
    model_class: type[LabelStudioMLBase],
    basic_auth_user: str | None = None,
    basic_auth_pass: str | None = None,
) -> Flask:
    server = Flask(__name__)

    @server.post("/predict")
    def predict() -> ResponseReturnValue:
        body = request.get_json()
        params = body.get("params", {})
        context = params.pop("context", {})
        model = model_class(str(body.get("project")).split(".", 1)[0], label_config=body.get("label_config"))
        response = model.predict(body.get("tasks"), context=context, **params)
        assert isinstance(response, ModelResponse)
        if not response.has_model_version():
            response.set_version(str(model.model_version))
        return jsonify(results=response.model_dump()["predictions"])

    @server.post("/setup")
    def setup() -> ResponseReturnValue:
        body = request.get_json()
        model = model_class(body["project"].split(".", 1)[0], label_config=body.get("schema"))
        if body.get("extra_params"):
            model.set_extra_params(body["extra_params"])
        return jsonify(model_version=model.get("model_version"))

    @server.post("/webhook")
    def webhook() -> ResponseReturnValue:
        body = request.get_json()
        event = body.pop("action")
        if event not in TRAIN_EVENTS:
            return jsonify(status="Unknown event"), 200
        model = model_class(str(body["project"]["id"]), label_config=body["project"]["label_config"])
        return jsonify(result=model.fit(event, body), status="ok"), 201

    @server.get("/health")
    def health() -> ResponseReturnValue:
        return jsonify(status="UP", model_class=model_class.__name__)

    return server
