// A courier's dispatcher in Go, traced with OpenTelemetry's SDK alone: it knows nothing of MLflow. Where traces go, and by which
// protocol, is in the environment, as OpenTelemetry has it.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"go.opentelemetry.io/contrib/exporters/autoexport"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/trace"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	exporter, err := autoexport.NewSpanExporter(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "cannot export spans:", err)
		os.Exit(1)
	}
	provider := trace.NewTracerProvider(trace.WithBatcher(exporter, trace.WithBatchTimeout(time.Second)))
	otel.SetTracerProvider(provider)
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = provider.Shutdown(ctx)
	}()
	pause := 20.0
	if text := os.Getenv("QUESTION_EVERY_SECONDS"); text != "" {
		if pause, err = strconv.ParseFloat(text, 64); err != nil {
			fmt.Fprintln(os.Stderr, "QUESTION_EVERY_SECONDS is no number:", text)
			os.Exit(1)
		}
	}
	for number := 1; ctx.Err() == nil; number++ {
		question := fmt.Sprintf("Where is parcel P-%d?", 1000+number%3)
		if reply, err := answer(ctx, question); err == nil {
			fmt.Println(question, "->", reply)
		} else {
			fmt.Println(question, "-> no answer:", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(pause * float64(time.Second))):
		}
	}
}

// answer asks the model, with a span for the question and one for the model's part.
func answer(ctx context.Context, question string) (reply string, err error) {
	tracer := otel.Tracer("dispatcher")
	ctx, span := tracer.Start(ctx, "dispatch")
	span.SetAttributes(attribute.String("input.value", question))
	defer span.End()
	ctx, chat := tracer.Start(ctx, "chat")
	defer chat.End()
	model := "gpt-4o-mini"
	chat.SetAttributes(attribute.String("gen_ai.operation.name", "chat"), attribute.String("gen_ai.request.model", model))
	if reply, err = ask(ctx, model, question); err != nil {
		chat.SetStatus(codes.Error, err.Error())
		span.SetStatus(codes.Error, err.Error())
		return "", err
	}
	span.SetAttributes(attribute.String("output.value", reply))
	return reply, nil
}

func ask(ctx context.Context, model, question string) (string, error) {
	body, err := json.Marshal(map[string]any{
		"model": model, "messages": []map[string]string{{"role": "user", "content": question}},
	})
	if err != nil {
		return "", err
	}
	url := strings.TrimSuffix(os.Getenv("OPENAI_BASE_URL"), "/") + "/chat/completions"
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Authorization", "Bearer "+os.Getenv("OPENAI_API_KEY"))
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	var found struct {
		Choices []struct {
			Message struct{ Content string }
		}
	}
	if err := json.NewDecoder(response.Body).Decode(&found); err != nil {
		return "", fmt.Errorf("%s: %w", response.Status, err)
	}
	if len(found.Choices) == 0 {
		return "", fmt.Errorf("%s without a choice", response.Status)
	}
	return found.Choices[0].Message.Content, nil
}
