{{- define "aim-extproc.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "aim-extproc.selectorLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "aim-extproc.labels" -}}
{{ include "aim-extproc.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "aim-extproc.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "aim-extproc.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "aim-extproc.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{/* The settings file: the values, and over them what follows from the pod. */}}
{{- define "aim-extproc.settings" -}}
{{- $own := dict "admin" (printf "%s:9902" .Values.bindAddress) "workers" 1 -}}
{{- if eq .Values.mode "sidecar" -}}
{{- $_ := set $own "listen" "unix:/run/extproc/extproc.sock" -}}
{{- else -}}
{{- $_ := set $own "listen" (printf "%s:50051" .Values.bindAddress) -}}
{{- if .Values.tls.secret -}}
{{- $tls := dict "cert_file" "/run/secrets/tls/tls.crt" "key_file" "/run/secrets/tls/tls.key" -}}
{{- if .Values.tls.clientCa.configMap -}}
{{- $_ := set $tls "client_ca_file" "/run/secrets/client-ca/ca.crt" -}}
{{- end -}}
{{- $_ := set $own "tls" $tls -}}
{{- else if .Values.tls.clientCa.configMap -}}
{{- fail "tls.clientCa needs tls.secret" -}}
{{- end -}}
{{- end -}}
{{- if .Values.aimKey.secret -}}
{{- $_ := set $own "aim" (dict "api_key_file" "/run/secrets/aim/default") -}}
{{- end -}}
{{- $profiles := dict -}}
{{- range $profile, $_ := .Values.profileKeys -}}
{{- if not (hasKey (default dict $.Values.settings.profiles) $profile) -}}
{{- fail (printf "profileKeys.%s: no such profile in settings.profiles" $profile) -}}
{{- end -}}
{{- $_ := set $profiles $profile (dict "api_key_file" (printf "/run/secrets/aim/profiles/%s" $profile)) -}}
{{- end -}}
{{- if $profiles -}}
{{- $_ := set $own "profiles" $profiles -}}
{{- end -}}
{{- mergeOverwrite (deepCopy .Values.settings) $own | toYaml -}}
{{- end -}}

{{/* What a running process does not take up when its file changes: a change of it starts the pods again. */}}
{{- define "aim-extproc.restarting" -}}
{{- $limits := default dict .Values.settings.limits -}}
{{- $fixed := omit .Values.settings "aim" "limits" "profiles" -}}
{{- $limits = pick $limits "request_bytes" "streams" -}}
{{- toYaml (dict "settings" $fixed "limits" $limits "tls" .Values.tls "bind" .Values.bindAddress) -}}
{{- end -}}

{{- define "aim-extproc.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
# The key files belong to this group.
fsGroup: 10001
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "aim-extproc.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* The container, but for its name, its arguments and its place in the pod. */}}
{{- define "aim-extproc.container" -}}
image: {{ include "aim-extproc.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
env:
  - name: EXTPROC_CONFIG
    value: /etc/extproc/settings.yaml
  {{- with .Values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
volumeMounts:
  # Folders, not files: a file mounted with subPath is not updated with its ConfigMap or Secret.
  - name: aim-extproc-settings
    mountPath: /etc/extproc
    readOnly: true
  {{- if or .Values.aimKey.secret .Values.profileKeys }}
  - name: aim-extproc-keys
    mountPath: /run/secrets/aim
    readOnly: true
  {{- end }}
  {{- if eq .Values.mode "sidecar" }}
  - name: aim-extproc
    mountPath: /run/extproc
  {{- else }}
  {{- if .Values.tls.secret }}
  - name: aim-extproc-tls
    mountPath: /run/secrets/tls
    readOnly: true
  {{- end }}
  {{- if .Values.tls.clientCa.configMap }}
  - name: aim-extproc-client-ca
    mountPath: /run/secrets/client-ca
    readOnly: true
  {{- end }}
  {{- end }}
  {{- with .Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* What the container tells Kubernetes about its life. */}}
{{- define "aim-extproc.probes" -}}
ports:
  {{- if ne .Values.mode "sidecar" }}
  - name: grpc
    containerPort: 50051
  {{- end }}
  - name: aim-admin
    containerPort: 9902
startupProbe:
  httpGet:
    path: /healthz
    port: aim-admin
  {{- toYaml .Values.probes.startup | nindent 2 }}
readinessProbe:
  httpGet:
    path: /readyz
    port: aim-admin
  {{- toYaml .Values.probes.readiness | nindent 2 }}
livenessProbe:
  httpGet:
    path: /healthz
    port: aim-admin
  {{- toYaml .Values.probes.liveness | nindent 2 }}
{{- end -}}

{{- define "aim-extproc.volumes" -}}
- name: aim-extproc-settings
  configMap:
    name: {{ include "aim-extproc.fullname" . }}
{{- if or .Values.aimKey.secret .Values.profileKeys }}
- name: aim-extproc-keys
  projected:
    # The sidecar's group differs from that of its pod.
    defaultMode: {{ ternary "0444" "0440" (eq .Values.mode "sidecar") }}
    sources:
      {{- with .Values.aimKey }}
      {{- if .secret }}
      - secret:
          name: {{ .secret }}
          items:
            - key: {{ .key }}
              path: default
      {{- end }}
      {{- end }}
      {{- range $profile, $from := .Values.profileKeys }}
      - secret:
          name: {{ $from.secret }}
          items:
            - key: {{ $from.key }}
              path: profiles/{{ $profile }}
      {{- end }}
{{- end }}
{{- if eq .Values.mode "sidecar" }}
- name: aim-extproc
  emptyDir:
    medium: Memory
    sizeLimit: 1Mi
{{- else }}
{{- if .Values.tls.secret }}
- name: aim-extproc-tls
  secret:
    secretName: {{ .Values.tls.secret }}
    defaultMode: 0440
{{- end }}
{{- if .Values.tls.clientCa.configMap }}
- name: aim-extproc-client-ca
  configMap:
    name: {{ .Values.tls.clientCa.configMap }}
    items:
      - key: {{ .Values.tls.clientCa.key }}
        path: ca.crt
{{- end }}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* A native sidecar: it is ready before Envoy starts, and ends after Envoy has. */}}
{{- define "aim-extproc.sidecarContainer" -}}
name: aim-extproc
restartPolicy: Always
args: [serve]
{{ include "aim-extproc.container" . }}
{{ include "aim-extproc.probes" . }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  # The socket is accessible to the sidecar's user and to its group, which is Envoy's.
  runAsGroup: {{ .Values.sidecar.group }}
  {{- include "aim-extproc.securityContext" . | nindent 2 }}
  seccompProfile:
    type: RuntimeDefault
resources:
  {{- toYaml .Values.resources | nindent 2 }}
{{- end -}}

{{/* NetworkPolicyPeers: the pods of a namespace, and more. Without any value they are the pods of the release's own namespace. */}}
{{- define "aim-extproc.peers" -}}
{{- if or .namespace .labels (not .more) -}}
{{- $peer := dict "podSelector" (ternary (dict "matchLabels" .labels) dict (not (empty .labels))) -}}
{{- if .namespace -}}
{{- $name := dict "kubernetes.io/metadata.name" .namespace -}}
{{- $_ := set $peer "namespaceSelector" (dict "matchLabels" $name) -}}
{{- end -}}
{{- prepend (default list .more) $peer | toYaml -}}
{{- else -}}
{{- toYaml .more -}}
{{- end -}}
{{- end -}}

{{/* The TCP ports that the sidecar may reach: those of the values, and those of the URLs of Aim, a proxy and a collector. */}}
{{- define "aim-extproc.egressPorts" -}}
{{- $ports := list -}}
{{- range .Values.networkPolicy.egressPorts -}}
{{- $ports = append $ports (int .) -}}
{{- end -}}
{{- $aim := default dict .Values.settings.aim -}}
{{- $urls := list $aim.base_url $aim.proxy -}}
{{- range .Values.extraEnv -}}
{{- if regexMatch "^(AIM_API_BASE|HTTPS?_PROXY|OTEL_EXPORTER_OTLP_(.*_)?ENDPOINT)$" (upper .name) -}}
{{- $urls = append $urls .value -}}
{{- end -}}
{{- end -}}
{{- range compact $urls -}}
{{- if regexMatch "^https?://" . -}}
{{- $url := urlParse . -}}
{{- $port := regexFind ":[0-9]+$" $url.host | trimPrefix ":" | default (ternary "80" "443" (eq $url.scheme "http")) -}}
{{- $ports = append $ports (int $port) -}}
{{- end -}}
{{- end -}}
{{- range uniq $ports }}
- port: {{ . }}
  protocol: TCP
{{- end -}}
{{- end -}}
