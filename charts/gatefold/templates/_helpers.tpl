{{/* Names, labels and numbers that several kinds share. */}}

{{- define "gatefold.grpcPort" -}}7000{{- end }}
{{- define "gatefold.httpPort" -}}8080{{- end }}
{{- define "gatefold.otlpPort" -}}4317{{- end }}
{{- define "gatefold.adminPort" -}}9090{{- end }}
{{- define "gatefold.user" -}}65532{{- end }}
{{- define "gatefold.secretPath" -}}/etc/gatefold/secrets{{- end }}
{{- define "gatefold.tlsPath" -}}/etc/gatefold/tls{{- end }}
{{- define "gatefold.keyPath" -}}/run/gatefold{{- end }}

{{- define "gatefold.fullname" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name }}{{ else }}{{ .Release.Name }}-{{ .Chart.Name }}{{ end }}
{{- end }}

{{/* What selects a service's pods: (list $ name) */}}
{{- define "gatefold.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ $root.Chart.Name }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "gatefold.labels" -}}
{{- $root := index . 0 -}}
{{ include "gatefold.selector" . }}
app.kubernetes.io/version: {{ $root.Values.image.tag | default $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ $root.Chart.Name }}-{{ $root.Chart.Version }}
{{- end }}

{{/* The image of a service: (list $ name service) */}}
{{- define "gatefold.image" -}}
{{- $root := index . 0 -}}
{{- $image := $root.Values.image -}}
{{- (index . 2).image | default (printf "%s/gatefold-%s:%s" $image.registry (index . 1) ($image.tag | default $root.Chart.AppVersion)) }}
{{- end }}

{{- define "gatefold.secretName" -}}
{{- (index . 1).secretName | default (printf "gatefold-%s" (index . 0)) }}
{{- end }}

{{/* A service's settings over those of all, as JSON: (list $ service). Written out because merging drops false and 0. */}}
{{- define "gatefold.settings" -}}
{{- $root := index . 0 -}}
{{- $all := deepCopy $root.Values.defaults.settings -}}
{{- range $key, $value := (index . 1).settings }}{{ $_ := set $all $key $value }}{{ end -}}
{{- toJson $all }}
{{- end }}

{{/* A setting as the text that libs/config reads: whole numbers without an exponent, templates filled in. */}}
{{- define "gatefold.text" -}}
{{- $value := index . 1 -}}
{{- if kindIs "string" $value }}{{ tpl $value (index . 0) }}
{{- else if and (kindIs "float64" $value) (eq (floor $value) $value) }}{{ int64 $value }}
{{- else }}{{ $value }}
{{- end }}
{{- end }}

{{/* What a service is told: where it listens, its peers, its settings, where its secrets are: (list $ service) */}}
{{- define "gatefold.environment" -}}
{{- $root := index . 0 -}}
{{- $service := index . 1 -}}
{{- $peers := dict -}}
{{- range $service.calls }}
{{- $_ := set $peers . (printf "%s-%s:%s" (include "gatefold.fullname" $root) . (include "gatefold.grpcPort" $root)) }}
{{- end -}}
{{ if $service.http -}}
{{- /* Its own rules, which nobody but itself calls. */}}
GATEFOLD_LISTEN: 127.0.0.1:{{ include "gatefold.grpcPort" $root }}
GATEFOLD_HTTP_LISTEN: 0.0.0.0:{{ include "gatefold.httpPort" $root }}
{{- if $root.Values.edge.otlp }}
GATEFOLD_OTLP_LISTEN: 0.0.0.0:{{ include "gatefold.otlpPort" $root }}
{{- end }}
{{- else -}}
GATEFOLD_LISTEN: 0.0.0.0:{{ include "gatefold.grpcPort" $root }}
{{- end }}
GATEFOLD_METRICS_LISTEN: 0.0.0.0:{{ include "gatefold.adminPort" $root }}
GATEFOLD_PEERS: {{ toJson $peers | quote }}
GATEFOLD_TLS_CA: {{ include "gatefold.tlsPath" $root }}/ca.crt
GATEFOLD_TLS_CERT: {{ include "gatefold.tlsPath" $root }}/tls.crt
GATEFOLD_TLS_KEY: {{ include "gatefold.tlsPath" $root }}/tls.key
{{- if $service.keyFile }}
GATEFOLD_KEY_FILE: {{ include "gatefold.keyPath" $root }}/key_file
{{- end }}
{{- range $key, $value := include "gatefold.settings" (list $root $service) | fromJson }}
GATEFOLD_{{ upper $key }}: {{ include "gatefold.text" (list $root $value) | quote }}
{{- end }}
{{- range $key, $mounted := $service.secrets }}
{{- if $mounted }}
GATEFOLD_{{ upper $key }}_FILE: {{ include "gatefold.secretPath" $root }}/{{ $key }}
{{- end }}
{{- end }}
{{- end }}

{{- define "gatefold.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ include "gatefold.user" . }}
runAsGroup: {{ include "gatefold.user" . }}
fsGroup: {{ include "gatefold.user" . }}
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "gatefold.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* A rule of a NetworkPolicy for something outside: (list $ name) */}}
{{- define "gatefold.egress" -}}
{{- $name := index . 1 -}}
{{- $there := index (index . 0).Values.outside $name -}}
- ports:
  {{- range $there.ports }}
    - {port: {{ . }}, protocol: TCP}
    {{- if eq $name "dns" }}
    - {port: {{ . }}, protocol: UDP}
    {{- end }}
  {{- end }}
  {{- if $there.public }}
  to:
    - ipBlock:
        cidr: 0.0.0.0/0
        except: [0.0.0.0/8, 10.0.0.0/8, 100.64.0.0/10, 127.0.0.0/8, 169.254.0.0/16, 172.16.0.0/12, 192.168.0.0/16]
    - ipBlock:
        cidr: 2000::/3
  {{- else }}
  {{- with $there.to }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- end }}
{{- end }}

{{/* Refuses values that a schema cannot see through. */}}
{{- define "gatefold.check" -}}
{{- $budget := dict "left" (int .Values.postgres.connectionBudget) "needed" 0 -}}
{{- range $name, $service := .Values.services }}
{{- range $service.calls }}
{{- if not (hasKey $.Values.services .) }}{{ fail (printf "services.%s.calls names %s, which is no service" $name .) }}{{ end }}
{{- end }}
{{- range $service.outside }}
{{- if not (hasKey $.Values.outside .) }}{{ fail (printf "services.%s.outside names %s, which outside does not hold" $name .) }}{{ end }}
{{- end }}
{{- if has "postgres" $service.outside }}
{{- $settings := include "gatefold.settings" (list $ $service) | fromJson }}
{{- $pool := int (default 4 $settings.postgres_pool_size) }}
{{- $keys := ternary (int (default 2 $settings.keys_pool_size)) 0 (default false $service.keyFile) }}
{{- $replicas := mergeOverwrite (deepCopy $.Values.defaults.replicas) (default dict $service.replicas) }}
{{- /* Two roles have a pool each, the keys database another; a roll-out has one pod more. */}}
{{- $_ := set $budget "needed" (add $budget.needed (mul (add (int $replicas.max) 1) (add (mul 2 $pool) $keys))) }}
{{- end }}
{{- end }}
{{- if gt (int $budget.needed) $budget.left }}
{{- fail (printf "all replicas at their greatest number need %d connections; postgres.connectionBudget is %d" (int $budget.needed) $budget.left) }}
{{- end }}
{{- end }}
