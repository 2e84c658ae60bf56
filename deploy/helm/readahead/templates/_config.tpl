{{/* The processes' own configuration files, assembled once and read by every template. */}}

{{- define "readahead.modelName" -}}
{{- .Values.model.name | default (base .Values.model.path) -}}
{{- end }}

{{/* How processes find each other; a URL from a Secret comes by the environment instead. */}}
{{- define "readahead.membership" -}}
{{- $redis := .Values.redis -}}
{{- if gt (len (compact (list (ternary "demo" "" $redis.enabled) $redis.url $redis.urlSecret.name))) 1 -}}
{{- fail "redis: give only one of enabled=true, url and urlSecret.name" -}}
{{- end -}}
{{- if $redis.enabled -}}
redis_url: redis://{{ include "readahead.component" (dict "root" . "component" "redis") }}:6379/0
{{- else if $redis.url -}}
redis_url: {{ $redis.url | quote }}
{{- else -}}
{}
{{- end -}}
{{- end }}

{{- define "readahead.hasRedis" -}}
{{- if or .Values.redis.enabled .Values.redis.url .Values.redis.urlSecret.name }}true{{ end -}}
{{- end }}

{{/* Routers without Redis dial each worker's Service, so there is one worker behind each. */}}
{{- define "readahead.staticWorkers" -}}
{{- range $role := list "prefill" "decode" }}
{{- $config := include "readahead.workerConfig" (dict "root" $ "role" $role) | fromYaml }}
{{- if gt (int (get $.Values $role).replicas) 1 }}
{{- fail (printf "%s.replicas: without Redis there can be only one, since routers find workers by Service name; set redis.enabled, redis.url or redis.urlSecret" $role) }}
{{- end }}
- {{ include "readahead.component" (dict "root" $ "component" $role) }}:{{ int $config.port }}
{{- end }}
{{- end }}

{{- define "readahead.routerConfig" -}}
{{- $membership := include "readahead.membership" . | fromYaml -}}
{{- if not (include "readahead.hasRedis" .) -}}
{{- $membership = dict "workers" (include "readahead.staticWorkers" . | fromYamlArray) -}}
{{- end -}}
{{- $doors := dict "host" "0.0.0.0" -}}
{{- if .Values.router.tlsSecret -}}
{{- $tls := dict "certificate_file" "/etc/readahead/tls/tls.crt" "key_file" "/etc/readahead/tls/tls.key" -}}
{{- $_ := set $doors "tls" $tls -}}
{{- end -}}
{{- $filled := dict
      "model" (dict "path" .Values.model.path "name" (include "readahead.modelName" .))
      "doors" $doors
      "membership" $membership
      "telemetry" (deepCopy .Values.telemetry) -}}
{{- mergeOverwrite $filled (deepCopy .Values.router.config) | toYaml -}}
{{- end }}

{{/* Takes the router's settings. */}}
{{- define "readahead.routerScheme" -}}
{{- $tls := .doors.tls | default dict -}}
{{- ternary "https" "http" (not (empty $tls.certificate_file)) -}}
{{- end }}

{{/* Takes (dict "root" $ "role" "prefill"). */}}
{{- define "readahead.workerConfig" -}}
{{- $values := .root.Values -}}
{{- $own := get $values .role -}}
{{- $gpus := int $own.gpu.count -}}
{{- $filled := dict
      "role" .role
      "host" "0.0.0.0"
      "engine" (dict
        "model_path" $values.model.path
        "model_name" (include "readahead.modelName" .root)
        "tensor_parallel_size" (max 1 $gpus))
      "membership" (include "readahead.membership" .root | fromYaml)
      "telemetry" (mergeOverwrite (dict "metrics_host" "0.0.0.0") (deepCopy $values.telemetry)) -}}
{{- $config := mergeOverwrite $filled (deepCopy $values.worker.config) (deepCopy $own.config) -}}
{{- if and $gpus (gt (int $config.engine.tensor_parallel_size) $gpus) -}}
{{- fail (printf "%s.config.engine.tensor_parallel_size (%d) exceeds %s.gpu.count (%d)" .role (int $config.engine.tensor_parallel_size) .role $gpus) -}}
{{- end -}}
{{- $hasTls := not (empty ($config.tls | default dict).certificate_file) -}}
{{- $isTrusted := not (empty ($values.router.config.worker_tls | default dict).authority_file) -}}
{{- if ne $hasTls $isTrusted -}}
{{- fail (printf "%s.config.tls and router.config.worker_tls.authority_file go together: routers dial every worker alike" .role) -}}
{{- end -}}
{{- $config | toYaml -}}
{{- end }}

{{/* Takes (dict "component" … "values" … "config" …). Kubernetes kills a pod that is not done. */}}
{{- define "readahead.checkGrace" -}}
{{- $needed := addf (float64 .values.preStopSeconds) (float64 .config.drain_s_max) -}}
{{- if not (gt (float64 .values.terminationGracePeriodSeconds) $needed) -}}
{{- fail (printf "%s.terminationGracePeriodSeconds (%v) must exceed preStopSeconds (%v) + config.drain_s_max (%v)" .component .values.terminationGracePeriodSeconds .values.preStopSeconds .config.drain_s_max) -}}
{{- end -}}
{{- end }}

{{/* Takes (dict "component" … "key" … "port" …). */}}
{{- define "readahead.checkPort" -}}
{{- if le (int .port) 0 -}}
{{- fail (printf "%s.config.%s must be a fixed port in a cluster, got %v" .component .key .port) -}}
{{- end -}}
{{- end }}
