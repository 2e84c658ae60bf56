{{/* The objects of one pool of workers. Each takes (dict "root" $ "role" "prefill"). */}}

{{- define "readahead.worker" -}}
{{- $root := .root -}}
{{- $role := .role -}}
{{- $values := get $root.Values $role -}}
{{- $yaml := include "readahead.workerConfig" . -}}
{{- $config := fromYaml $yaml -}}
{{- $named := dict "root" $root "component" $role "values" $values "config" $yaml "prefix" "READAHEAD_WORKER" -}}
{{- include "readahead.checkGrace" (dict "component" $role "values" $values "config" $config) -}}
{{- include "readahead.checkPort" (dict "component" $role "key" "port" "port" $config.port) -}}
{{- include "readahead.checkPort" (dict "component" $role "key" "kv.side_channel_port" "port" $config.kv.side_channel_port) -}}
{{- include "readahead.configMap" $named }}
---
{{ include "readahead.podDisruptionBudget" $named }}
---
apiVersion: v1
kind: Service
metadata:
  name: {{ include "readahead.component" $named }}
  labels: {{ include "readahead.labels" $named | nindent 4 }}
spec:
  clusterIP: None
  selector: {{ include "readahead.selector" $named | nindent 4 }}
  ports:
    - name: grpc
      port: {{ int $config.port }}
      targetPort: grpc
      appProtocol: kubernetes.io/h2c
    {{- if int $config.telemetry.metrics_port }}
    - name: metrics
      port: {{ int $config.telemetry.metrics_port }}
      targetPort: metrics
    {{- end }}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include "readahead.component" $named }}
  labels: {{ include "readahead.labels" $named | nindent 4 }}
spec:
  replicas: {{ int $values.replicas }}
  # A large model may load for startupSeconds; a rollout is late only well after that.
  progressDeadlineSeconds: {{ add 600 (int $values.startupSeconds) }}
  strategy: {{ toYaml $values.strategy | nindent 4 }}
  selector:
    matchLabels: {{ include "readahead.selector" $named | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "readahead.selector" $named | nindent 8 }}
        {{- with $values.podLabels }}{{ toYaml . | nindent 8 }}{{ end }}
      annotations:
        readahead/config-sha256: {{ sha256sum $yaml }}
        {{- with $values.podAnnotations }}{{ toYaml . | nindent 8 }}{{ end }}
    spec:
      {{- include "readahead.podBasics" $named | nindent 6 }}
      containers:
        - name: worker
          image: {{ include "readahead.image" (dict "root" $root "image" $root.Values.worker.image) }}
          imagePullPolicy: {{ $root.Values.image.pullPolicy }}
          command: [readahead]
          args: [worker, --role, {{ $role }}, --config, /etc/readahead/{{ $role }}.yaml]
          {{- $context := mergeOverwrite (deepCopy $root.Values.containerSecurityContext) (deepCopy $root.Values.worker.containerSecurityContext) }}
          securityContext: {{ toYaml $context | nindent 12 }}
          env: {{ include "readahead.workerEnv" (merge (dict "port" (int $config.port)) $named) | nindent 12 }}
          ports:
            - name: grpc
              containerPort: {{ int $config.port }}
            - name: kv
              containerPort: {{ int $config.kv.side_channel_port }}
            {{- if int $config.telemetry.metrics_port }}
            - name: metrics
              containerPort: {{ int $config.telemetry.metrics_port }}
            {{- end }}
          {{- include "readahead.workerProbes" (dict "values" $values "config" $config) | nindent 10 }}
          {{- include "readahead.preStop" $named | nindent 10 }}
          {{- $resources := deepCopy $values.resources }}
          {{- if int $values.gpu.count }}
          {{- $gpu := dict $values.gpu.resource (int $values.gpu.count) }}
          {{- $resources = mergeOverwrite $resources (dict "requests" $gpu "limits" $gpu) }}
          {{- end }}
          resources: {{ toYaml $resources | nindent 12 }}
          volumeMounts:
            - name: config
              mountPath: /etc/readahead
              readOnly: true
            - name: model
              mountPath: {{ $root.Values.model.mountPath }}
              readOnly: true
            - name: shared-memory
              mountPath: /dev/shm
            - name: scratch
              mountPath: /tmp
            {{- with $values.extraVolumeMounts }}{{ toYaml . | nindent 12 }}{{ end }}
      volumes:
        - name: config
          configMap:
            name: {{ include "readahead.component" $named }}
        {{- include "readahead.modelVolume" $root | nindent 8 }}
        - name: shared-memory
          emptyDir:
            medium: Memory
            sizeLimit: {{ $values.sharedMemorySize }}
        - name: scratch
          emptyDir:
            sizeLimit: {{ $values.scratchSize }}
        {{- with $values.extraVolumes }}{{ toYaml . | nindent 8 }}{{ end }}
{{- end }}

{{/* A pod's own name and address; HOME is where engines keep compiled kernels, USER is for a
     uid that the image does not know. */}}
{{- define "readahead.workerEnv" -}}
- name: HOME
  value: /tmp
- name: USER
  value: readahead
- name: POD_IP
  valueFrom:
    fieldRef:
      fieldPath: status.podIP
- name: READAHEAD_WORKER__WORKER_ID
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: READAHEAD_WORKER__ADVERTISED_ADDRESS
  value: $(POD_IP):{{ .port }}
- name: READAHEAD_WORKER__KV__SIDE_CHANNEL_HOST
  value: $(POD_IP)
{{- include "readahead.redisEnv" . }}
{{- with .root.Values.worker.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- with .values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Liveness asks only whether the port is served: Redis, routers and draining must not kill it. */}}
{{- define "readahead.workerProbes" -}}
startupProbe:
  grpc:
    port: {{ int .config.port }}
  periodSeconds: 5
  failureThreshold: {{ div (add 4 (int .values.startupSeconds)) 5 }}
readinessProbe:
  grpc:
    port: {{ int .config.port }}
  periodSeconds: 5
  timeoutSeconds: 3
livenessProbe:
  tcpSocket:
    port: grpc
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
{{- end }}
