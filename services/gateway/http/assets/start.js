// Shows the OpenAPI document. Requests are not sent from here: keys do not belong into a browser.
window.addEventListener("load", () => {
  window.SwaggerUIBundle({
    url: "/openapi.json",
    dom_id: "#api",
    deepLinking: true,
    defaultModelsExpandDepth: 0,
    docExpansion: "list",
    supportedSubmitMethods: [],
    validatorUrl: null,
  });
});
