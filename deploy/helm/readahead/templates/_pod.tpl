{{/* Parts of a pod that every component has. */}}

{{- define "readahead.podBasics" -}}
serviceAccountName: {{ include "readahead.serviceAccount" .root }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
securityContext: {{ toYaml .root.Values.podSecurityContext | nindent 2 }}
terminationGracePeriodSeconds: {{ .values.terminationGracePeriodSeconds }}
{{- with .values.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .values.topologySpreadConstraints }}
topologySpreadConstraints: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{- define "readahead.modelVolume" -}}
{{- if ne (len .Values.model.volume) 1 -}}
{{- fail "model.volume: give exactly one volume source that holds the model, as in --set model.volume.persistentVolumeClaim.claimName=models" -}}
{{- end -}}
{{- with .Values.model.volume -}}
- name: model
{{ toYaml . | indent 2 }}
{{- end }}
{{- end }}

{{- define "readahead.preStop" -}}
{{- if .values.preStopSeconds }}
lifecycle:
  preStop:
    sleep:
      seconds: {{ .values.preStopSeconds }}
{{- end }}
{{- end }}

{{/* Takes "prefix": READAHEAD_ROUTER or READAHEAD_WORKER. */}}
{{- define "readahead.redisEnv" -}}
{{- with .root.Values.redis.urlSecret }}
{{- if .name }}
- name: {{ $.prefix }}__MEMBERSHIP__REDIS_URL
  valueFrom:
    secretKeyRef:
      name: {{ .name }}
      key: {{ .key }}
{{- end }}
{{- end }}
{{- end }}

{{- define "readahead.configMap" -}}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ include "readahead.component" . }}
  labels: {{ include "readahead.labels" . | nindent 4 }}
data:
  {{ .component }}.yaml: |
    {{- .config | nindent 4 }}
{{- end }}

{{- define "readahead.podDisruptionBudget" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "readahead.component" . }}
  labels: {{ include "readahead.labels" . | nindent 4 }}
spec:
  maxUnavailable: {{ (get .root.Values .component).podDisruptionBudget.maxUnavailable }}
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels: {{ include "readahead.selector" . | nindent 6 }}
{{- end }}
