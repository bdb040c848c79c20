#!/bin/sh
# Renders the chart and holds it against Kubernetes' schemas, the services' configuration and the contracts; needs no cluster.
set -eu
cd "$(dirname "$0")/.."
version=v3.22.0
tools=${XDG_CACHE_HOME:-$HOME/.cache}/gatefold/bin
HELM=$tools/helm-$version
if [ ! -x "$HELM" ]; then
    if ! command -v go >/dev/null 2>&1; then
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends golang >/dev/null
    fi
    echo "chart-check: building helm $version, once"
    fresh=$(mktemp -d)
    trap 'rm -rf "$fresh"' EXIT
    GOBIN=$fresh CGO_ENABLED=0 go install -trimpath "helm.sh/helm/v3/cmd/helm@$version"
    mkdir -p "$tools"
    mv "$fresh/helm" "$HELM"
fi
export HELM
"$HELM" lint --strict --quiet --kube-version 1.37 charts/gatefold -f charts/gatefold/example-values.yaml
.venv/bin/python -m pytest -q -p no:cacheprovider tests/chart
echo "chart-check: the chart holds"
